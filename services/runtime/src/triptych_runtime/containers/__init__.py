"""What several RPCs do with containers: events, contexts, stopping, exits, removal."""

from triptych_runtime.containers.context import sandbox_context, target_pid_namespace
from triptych_runtime.containers.emit import emit, emit_sandbox
from triptych_runtime.containers.exits import handle_exit, watch
from triptych_runtime.containers.remove import remove
from triptych_runtime.containers.stop import stop

__all__ = [
    "emit",
    "emit_sandbox",
    "handle_exit",
    "remove",
    "sandbox_context",
    "stop",
    "target_pid_namespace",
    "watch",
]
