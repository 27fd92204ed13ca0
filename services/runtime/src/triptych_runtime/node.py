"""Everything that an RPC works with: the node as this daemon holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.v1 import api_pb2
from triptych_service import Metrics

from triptych_runtime.cgroups import CgroupManager
from triptych_runtime.checkpoint.criu import Criu
from triptych_runtime.checkpoint.pauses import Pauses
from triptych_runtime.clients import ImageClient, StreamingClient
from triptych_runtime.events import EventBus
from triptych_runtime.lifecycle import Flights, Grace, Waits
from triptych_runtime.locks import Locks
from triptych_runtime.metrics import RuntimeMetrics
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.monitor import Conmon, ExitWatch, MonitorPaths
from triptych_runtime.namespaces import PodFiles, PodInit, PodNamespaces
from triptych_runtime.network import Network
from triptych_runtime.nri.nobody import NoPlugins
from triptych_runtime.ociruntime import Handlers
from triptych_runtime.settings import Settings
from triptych_runtime.spec import HostFacts
from triptych_runtime.stats import StatsCollector
from triptych_runtime.store import Database, State
from triptych_runtime.view import (
    container_message,
    container_status,
    list_entry,
    sandbox_message,
    sandbox_status,
)
from triptych_runtime.view.cache import MessageCache


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a node's files are. `root` survives a reboot, `state` (tmpfs) must not."""

    root: Path
    state: Path

    def bundle(self, container_id: str) -> Path:
        """OCI bundle, root file system mount and monitor files of a container."""
        return self.state / "containers" / container_id

    def rootfs(self, container_id: str) -> Path:
        return self.bundle(container_id) / "rootfs"

    def volumes(self, container_id: str) -> Path:
        """Volumes that the image config declares and nobody mounts: on disk, as long as the container."""
        return self.root / "volumes" / container_id

    @property
    def checkpoints(self) -> Path:
        """Process images of restored containers, by ID."""
        return self.root / "checkpoints"

    @property
    def pauses(self) -> Path:
        """Marks of the containers that checkpoints hold still."""
        return self.state / "pauses"

    @property
    def scratch(self) -> Path:
        """Checkpoints that are being written; emptied at each start."""
        return self.root / "scratch"

    def image_volume(self, container_id: str, index: int) -> Path:
        """Mount point of the image volume of the container's mount `index`."""
        return self.bundle(container_id) / "image-volumes" / str(index)

    def monitor(self, container_id: str) -> MonitorPaths:
        return MonitorPaths(self.bundle(container_id))

    @property
    def exits(self) -> Path:
        return self.state / "exits"

    @property
    def exec(self) -> Path:
        """Process documents and pid files of ExecSync."""
        return self.state / "exec"


@dataclass(slots=True)
class Node:
    """The parts of the runtime daemon, wired once at start.

    :ivar processes: the last few `process` documents that commands were exec'd after, by container.
    :ivar incomplete: records were lost since the boot: what has none may well be alive.
    :ivar unreadable: IDs of the records that this version cannot read.
    :ivar strays: containers without a record that are left alone, since they live.
    :ivar graces: of the containers that are being stopped: from the stop signal until SIGKILL.
    """

    settings: Settings
    paths: Paths
    host: HostFacts
    database: Database
    state: State
    handlers: Handlers
    cgroups: CgroupManager
    namespaces: PodNamespaces
    files: PodFiles
    init: PodInit
    network: Network
    conmon: Conmon
    exits: ExitWatch
    events: EventBus
    stats: StatsCollector
    images: ImageClient
    streaming: StreamingClient
    criu: Criu
    pauses: Pauses = field(init=False)
    nri: NoPlugins = field(default_factory=NoPlugins)
    metrics: RuntimeMetrics = field(default_factory=lambda: RuntimeMetrics(Metrics()))
    flights: Flights = field(default_factory=Flights)
    locks: Locks = field(default_factory=Locks)
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    exit_waits: Waits[ContainerRecord] = field(default_factory=Waits)
    incomplete: bool = False
    unreadable: set[str] = field(default_factory=set)
    strays: set[str] = field(default_factory=set)
    graces: dict[str, Grace] = field(default_factory=dict)
    stop_changes: Waits[None] = field(default_factory=Waits)
    sandbox_entries: MessageCache[SandboxRecord, bytes] = field(
        default_factory=lambda: MessageCache(lambda record: list_entry(sandbox_message(record)))
    )
    container_entries: MessageCache[ContainerRecord, bytes] = field(
        default_factory=lambda: MessageCache(lambda record: list_entry(container_message(record)))
    )
    sandbox_statuses: MessageCache[SandboxRecord, api_pb2.PodSandboxStatus] = field(
        default_factory=lambda: MessageCache(sandbox_status)
    )
    container_statuses: MessageCache[ContainerRecord, api_pb2.ContainerStatus] = field(
        default_factory=lambda: MessageCache(container_status)
    )

    def __post_init__(self) -> None:
        self.pauses = Pauses(self.paths.pauses)

    def owns(self, container_id: str) -> bool:
        """Whether what belongs to a container must stay."""
        return container_id in self.state.containers or container_id in self.strays

    def forget(self, identity: str) -> None:
        """Drop what is kept in memory of a sandbox or container that was removed."""
        for cache in (
            self.sandbox_entries,
            self.container_entries,
            self.sandbox_statuses,
            self.container_statuses,
        ):
            cache.forget(identity)
        self.processes.pop(identity, None)
