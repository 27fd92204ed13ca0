"""What can go wrong in the bootstrap itself, before any RPC is served."""

from __future__ import annotations

from triptych_errors import AlreadyExists, FailedPrecondition, InvalidArgument


class ConfigError(InvalidArgument):
    """The configuration is wrong; `problems` holds one line for each mistake, all files together."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SocketInUse(AlreadyExists):
    """Another live process serves the socket path."""

    def __init__(self, path: str, pid: int | None, program: str | None) -> None:
        owner = f"process {pid}" if pid else "another process"
        if program:
            owner += f" ({program})"
        super().__init__(
            f"socket {path} is served by {owner}",
            hint="stop it first, or set another path with the key `socket`",
        )
        self.path = path
        self.pid = pid


class SocketUnusable(FailedPrecondition):
    """The socket path cannot be bound: not a socket, too long, or its directory cannot be made."""


class EndpointUnusable(FailedPrecondition):
    """The address of the metrics endpoint cannot be served."""


class EndpointTaken(EndpointUnusable):
    """Another process serves it."""
