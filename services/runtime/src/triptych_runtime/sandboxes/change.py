"""Changing a sandbox's record."""

from __future__ import annotations

from typing import Any

import msgspec

from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.node import Node


async def change(
    node: Node, sandbox_id: str, *, only: SandboxPhase | None = None, durable: bool = False, **fields: Any
) -> SandboxRecord | None:
    """Replace fields of a sandbox's record as it is now, not as a caller once read it.

    Takes the sandbox's lock, so that no two changes are lost in each other.

    :param only: change a sandbox of this phase only.
    :param durable: fail where it cannot be written down, instead of doing so later.
    :returns: the new record; None when the sandbox is gone, and stays gone, or has another phase.
    :raises StoreFailed: see `durable`.
    """
    async with node.locks.hold(sandbox_id):
        current = node.state.sandboxes.get(sandbox_id)
        if current is None or only not in (None, current.phase):
            return None
        changed = msgspec.structs.replace(current, **fields)
        if changed != current:
            await (node.state.save if durable else node.state.show)(changed)
        return changed
