"""Errors of the runtime daemon; each has the gRPC code that containerd and CRI-O give for it."""

from __future__ import annotations

from triptych_errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)


class SandboxNotFound(NotFound):
    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"pod sandbox {sandbox_id!r} not found")


class ContainerNotFound(NotFound):
    def __init__(self, container_id: str) -> None:
        super().__init__(f"container {container_id!r} not found")


class AmbiguousId(InvalidArgument):
    def __init__(self, kind: str, prefix: str) -> None:
        super().__init__(f"{kind} ID prefix {prefix!r} is ambiguous", hint="give more digits")


class EmptyId(InvalidArgument):
    def __init__(self, kind: str) -> None:
        super().__init__(f"{kind} ID is empty")


class NameInUse(AlreadyExists):
    """The same name and attempt exist with another configuration, or have ended."""


class SandboxNotReady(FailedPrecondition):
    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"pod sandbox {sandbox_id} is not ready")


class ContainerNotRunning(FailedPrecondition):
    def __init__(self, container_id: str, state: str) -> None:
        super().__init__(f"container {container_id} is not running: it is {state}")


class WrongContainerState(FailedPrecondition):
    """The operation does not fit the state that the container is in."""


class UnknownHandler(InvalidArgument):
    def __init__(self, name: str, known: list[str]) -> None:
        hint = f"configured handlers: {', '.join(known) or 'none'}"
        super().__init__(f"no runtime handler {name!r} is configured", hint=hint)


class HandlerUnusable(FailedPrecondition):
    """The OCI runtime of a handler is missing or refuses this host."""


class RuntimeFailed(Internal):
    """The OCI runtime or the monitor failed at a step."""


class OperationTimeout(DeadlineExceeded):
    """A whole create or start took longer than its deadline."""


class CalledOff(Unavailable):
    """The daemon ended the work: it shuts down."""


class MonitorTimeout(DeadlineExceeded):
    """The monitor gave no answer before its deadline."""


class StoreFailed(Internal):
    """The database cannot be written or read."""


class StopTimeout(DeadlineExceeded):
    """A process did not end after SIGKILL."""


class RefusedByPlugin(FailedPrecondition):
    """An NRI plugin of the node does not want it."""


class PluginConflict(FailedPrecondition):
    """Two NRI plugins want the same of one container."""

    def __init__(self, first: str, second: str, what: str) -> None:
        super().__init__(f'plugins "{first}" and "{second}" both tried to set {what}')


class AdjustmentRefused(FailedPrecondition):
    """What an NRI plugin wants of a container cannot be done."""


class ServiceDown(Unavailable):
    """Another daemon of triptych does not answer."""

    def __init__(self, daemon: str, socket: str, step: str, detail: str) -> None:
        super().__init__(
            f"{step}: {daemon} does not answer on {socket}: {detail}",
            hint=f"start it: systemctl start {daemon}",
        )


__all__ = [
    "AdjustmentRefused",
    "AmbiguousId",
    "CalledOff",
    "ContainerNotFound",
    "ContainerNotRunning",
    "EmptyId",
    "FailedPrecondition",
    "HandlerUnusable",
    "InvalidArgument",
    "MonitorTimeout",
    "NameInUse",
    "OperationTimeout",
    "PluginConflict",
    "RefusedByPlugin",
    "RuntimeFailed",
    "SandboxNotFound",
    "SandboxNotReady",
    "ServiceDown",
    "StopTimeout",
    "StoreFailed",
    "UnknownHandler",
    "WrongContainerState",
]
