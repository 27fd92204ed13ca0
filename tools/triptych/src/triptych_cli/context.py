"""What every command is given: the three sockets, a deadline and the form of the output."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Output(enum.Enum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


class DaemonName(enum.Enum):
    """The three daemons."""

    IMAGE = "image"
    RUNTIME = "runtime"
    STREAMING = "streaming"

    @property
    def unit(self) -> str:
        """Its systemd unit, also the name of its program."""
        return f"triptych-{self.value}"

    @property
    def default_socket(self) -> str:
        return f"/run/triptych/{self.value}.sock"


def _sockets() -> dict[DaemonName, str]:
    return {name: name.default_socket for name in DaemonName}


@dataclass(frozen=True, slots=True)
class Context:
    """The global options.

    :param timeout: seconds for a call that answers quickly; pulls and the like have none.
    """

    sockets: dict[DaemonName, str] = field(default_factory=_sockets)
    timeout: float = 10.0
    output: Output = Output.TEXT

    @property
    def json(self) -> bool:
        return self.output is Output.JSON
