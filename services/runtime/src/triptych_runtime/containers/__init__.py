"""What several RPCs do with containers: events, contexts, stopping, exits, removal."""

from triptych_runtime.containers.context import pin_target, sandbox_context
from triptych_runtime.containers.emit import emit, emit_sandbox
from triptych_runtime.containers.exits import handle_exit, watch
from triptych_runtime.containers.remove import remove
from triptych_runtime.containers.stop import stop

__all__ = [
    "emit",
    "emit_sandbox",
    "handle_exit",
    "pin_target",
    "remove",
    "sandbox_context",
    "stop",
    "watch",
]
