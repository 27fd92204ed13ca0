"""What one look at a node finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from triptych_cli.context import DaemonName


class State(enum.Enum):
    """Whether a daemon works."""

    SERVING = "serving"
    NOT_SERVING = "not serving"
    """It answers and says that it does not serve: it starts or stops."""
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Daemon:
    """One daemon.

    :param version: "" when it does not tell.
    :param pid: 0 when not known.
    :param uptime: seconds since its process began.
    :param memory: proportional set size in bytes; 0 when not known.
    :param answer: seconds that its health check took.
    :param problem: why it is down.
    """

    name: DaemonName
    socket: str
    state: State
    version: str = ""
    pid: int = 0
    uptime: float = 0.0
    memory: int = 0
    answer: float = 0.0
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of the runtime's Status, such as NetworkReady."""

    type: str
    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the runtime daemon tells.

    :param pods: number of pod sandboxes by state.
    :param containers: number of containers by state.
    :param handlers: names of the runtime handlers; "" is the default.
    """

    conditions: tuple[Condition, ...]
    pods: dict[str, int]
    containers: dict[str, int]
    handlers: tuple[str, ...]

    @property
    def ready(self) -> bool:
        return all(condition.status for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Filesystem:
    """Disk use of one of the image daemon's file systems."""

    mountpoint: str
    used_bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull that runs.

    :param total: 0 while it is not known.
    :param host: the registry or mirror that serves it.
    """

    reference: str
    stage: str
    received: int
    total: int
    layers: int
    layers_done: int
    seconds: float
    host: str


@dataclass(frozen=True, slots=True)
class Images:
    """What the image daemon tells."""

    count: int
    size: int
    filesystems: tuple[Filesystem, ...]
    pulls: tuple[Pull, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """One exec, attach or port-forward session."""

    id: str
    kind: str
    target: str
    active: bool
    protocol: str
    seconds: float
    bytes_in: int
    bytes_out: int
    instance: int


@dataclass(frozen=True, slots=True)
class Streaming:
    """What the streaming daemon tells."""

    sessions: tuple[Session, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One look at everything; a part is None when its daemon did not tell.

    :param problems: errors of daemons that answer their health check, one line each.
    """

    daemons: tuple[Daemon, ...]
    runtime: Runtime | None
    images: Images | None
    streaming: Streaming | None
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Every daemon serves and every condition holds."""
        serving = all(daemon.state is State.SERVING for daemon in self.daemons)
        return serving and not self.problems and self.runtime is not None and self.runtime.ready
