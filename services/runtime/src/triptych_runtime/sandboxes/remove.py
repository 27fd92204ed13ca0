"""Removing a sandbox with all its containers."""

from __future__ import annotations

import logging

from runtime.v1 import api_pb2

from triptych_runtime.containers import emit_sandbox, remove
from triptych_runtime.lifecycle import each, fault
from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.sandboxes.change import change
from triptych_runtime.sandboxes.release import discard_sandbox
from triptych_runtime.sandboxes.stop import stop_sandbox

log = logging.getLogger(__name__)


async def remove_sandbox(node: Node, record: SandboxRecord) -> None:
    """Stop a sandbox if it is not, and remove it. Idempotent; a removal that runs is joined."""
    await node.flights.join(f"remove sandbox {record.id}", lambda: _remove(node, record))


async def _remove(node: Node, record: SandboxRecord) -> None:
    await stop_sandbox(node, record)
    await node.flights.settled_below(f"create {record.id}_")
    await each(remove(node, container) for container in node.state.containers_of(record.id))
    fault("remove_pod_sandbox.containers")
    removing = await change(node, record.id, phase=SandboxPhase.REMOVING)
    if removing is not None:
        await finish(node, removing)


async def finish(node: Node, record: SandboxRecord) -> None:
    """Remove what is left of a sandbox without containers, its record last, and tell of it."""
    fault("remove_pod_sandbox.marked")
    await discard_sandbox(node, record)
    await node.state.delete(record)
    log.info("removed pod sandbox", extra={"sandbox": record.id, "phase": record.phase.value})
    if record.visible:
        emit_sandbox(node, record, api_pb2.CONTAINER_DELETED_EVENT)
        await node.nri.remove_pod_sandbox(record)
    node.forget(record.id)
