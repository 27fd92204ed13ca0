"""Records as the messages of the CRI."""

from triptych_runtime.view.containers import container_message, container_status, match_container
from triptych_runtime.view.entries import list_entry
from triptych_runtime.view.sandboxes import match_sandbox, sandbox_message, sandbox_status

__all__ = [
    "container_message",
    "container_status",
    "list_entry",
    "match_container",
    "match_sandbox",
    "sandbox_message",
    "sandbox_status",
]
