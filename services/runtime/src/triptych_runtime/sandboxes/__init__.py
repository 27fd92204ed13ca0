"""What several RPCs do with sandboxes: options from the request, changing, losing, stopping, discarding."""

from triptych_runtime.sandboxes.change import change
from triptych_runtime.sandboxes.lose import lose, lost_namespaces, on_init_end, require_ready
from triptych_runtime.sandboxes.options import attachment, files_options, namespace_options, user_mappings
from triptych_runtime.sandboxes.release import discard_sandbox
from triptych_runtime.sandboxes.remove import finish as finish_sandbox
from triptych_runtime.sandboxes.remove import remove_sandbox
from triptych_runtime.sandboxes.stop import stop_sandbox

__all__ = [
    "attachment",
    "change",
    "discard_sandbox",
    "files_options",
    "finish_sandbox",
    "lose",
    "lost_namespaces",
    "namespace_options",
    "on_init_end",
    "remove_sandbox",
    "require_ready",
    "stop_sandbox",
    "user_mappings",
]
