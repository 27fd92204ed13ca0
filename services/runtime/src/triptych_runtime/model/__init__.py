"""What the daemon knows: immutable records of sandboxes and containers."""

from triptych_runtime.model.container import ContainerPhase, ContainerRecord, ExitReason, User
from triptych_runtime.model.ids import new_id
from triptych_runtime.model.sandbox import SandboxPhase, SandboxRecord

__all__ = [
    "ContainerPhase",
    "ContainerRecord",
    "ExitReason",
    "SandboxPhase",
    "SandboxRecord",
    "User",
    "new_id",
]
