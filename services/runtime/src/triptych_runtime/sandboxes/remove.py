"""Removing a sandbox with all its containers."""

from __future__ import annotations

import asyncio
import logging

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.containers import emit_sandbox, remove
from triptych_runtime.lifecycle import fault
from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.sandboxes.stop import release_sandbox, stop_sandbox

log = logging.getLogger(__name__)


async def remove_sandbox(node: Node, record: SandboxRecord) -> None:
    """Stop a sandbox if it is not, and remove it. Idempotent; a removal that runs is joined."""
    await node.flights.join(f"remove sandbox {record.id}", lambda: _remove(node, record))


async def _remove(node: Node, record: SandboxRecord) -> None:
    await stop_sandbox(node, record)
    current = node.state.sandboxes.get(record.id)
    if current is None:
        return
    async with asyncio.TaskGroup() as group:
        for container in node.state.containers_of(record.id):
            group.create_task(remove(node, container))
    fault("remove_pod_sandbox.containers")
    was_visible = current.visible
    removing = msgspec.structs.replace(current, phase=SandboxPhase.REMOVING)
    await node.state.save(removing)
    fault("remove_pod_sandbox.marked")
    await discard_sandbox(node, removing)
    await node.state.delete(removing)
    log.info("removed pod sandbox", extra={"sandbox": record.id})
    if was_visible:
        emit_sandbox(node, removing, api_pb2.CONTAINER_DELETED_EVENT)


async def discard_sandbox(node: Node, record: SandboxRecord) -> None:
    """Undo everything that a sandbox may have, whatever it came to."""
    if record.phase is SandboxPhase.CREATING:
        # It may have been attached, or have an init, without having come to say so.
        paths = node.namespaces.get(record.id).paths()
        record = msgspec.structs.replace(record, network_ready=True, namespaces=paths)
        await node.cgroups.resolve(node.cgroups.container_path(record.cgroup_parent, record.id)).kill()
    await release_sandbox(node, record)
