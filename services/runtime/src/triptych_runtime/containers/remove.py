"""Removing a container with all that it has."""

from __future__ import annotations

import asyncio
import logging
import shutil

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.bundles import remove_bundle
from triptych_runtime.containers.emit import emit
from triptych_runtime.containers.exits import plugins_told_of_stop, release
from triptych_runtime.containers.stop import stop
from triptych_runtime.lifecycle import fault
from triptych_runtime.model import ContainerPhase, ContainerRecord
from triptych_runtime.node import Node

log = logging.getLogger(__name__)


async def remove(node: Node, record: ContainerRecord) -> None:
    """Stop a container at once if it runs, and remove it. Idempotent; a removal that runs is joined."""
    await node.flights.join(f"remove {record.id}", lambda: _remove(node, record))


async def _remove(node: Node, record: ContainerRecord) -> None:
    await stop(node, record, 0)
    await node.flights.settled(f"create {record.key}", f"release {record.id}")
    await plugins_told_of_stop(node, record.id)
    async with node.locks.hold(record.id):
        current = node.state.containers.get(record.id)
        if current is None:
            return
        if current.visible:
            current = msgspec.structs.replace(current, phase=ContainerPhase.REMOVING)
            await node.state.show(current)
        await finish(node, current)
    await tell_plugins_of_removal(node, current)


async def tell_plugins_of_removal(node: Node, record: ContainerRecord) -> None:
    """Tell NRI plugins that a container is gone; not under its lock, since they may take their time."""
    sandbox = node.state.sandboxes.get(record.sandbox_id)
    if sandbox is not None and record.visible:
        await node.nri.remove_container(sandbox, record)


async def finish(node: Node, record: ContainerRecord) -> None:
    """Remove what is left of a container, its record last, and tell of it; the caller holds its lock."""
    fault("remove_container.marked")
    await discard(node, record)
    fault("remove_container.discarded")
    await node.state.delete(record)
    extra = {"container": record.id, "container_name": record.name, "phase": record.phase.value}
    log.info("removed container", extra=extra)
    if record.visible:
        emit(node, record, api_pb2.CONTAINER_DELETED_EVENT)
    node.forget(record.id)


async def discard(node: Node, record: ContainerRecord) -> None:
    """Undo everything that a container may have, whatever it came to; every step is idempotent."""
    bundle, volumes = node.paths.bundle(record.id), node.paths.volumes(record.id)
    node.exits.forget(record.id)
    if await asyncio.to_thread(_was_started, node, record):
        await release(node, record, end_monitor=True)
    await asyncio.to_thread(remove_bundle, bundle, volumes)
    fault("remove_container.bundle")
    await node.images.remove(record.id)
    if record.image_volumes or record.phase is ContainerPhase.CREATING:
        await node.images.remove(record.id, prefix=True)
    checkpoint = node.paths.checkpoints / record.id
    if checkpoint.exists():
        await asyncio.to_thread(shutil.rmtree, checkpoint, ignore_errors=True)
    node.exits.remove_file(record.id)


def _was_started(node: Node, record: ContainerRecord) -> bool:
    """Whether the OCI runtime or the kernel still know of it."""
    handler = node.handlers.find(record.handler)
    state = handler is not None and (handler.runtime.root / record.id).exists()
    return state or node.cgroups.resolve(record.cgroups_path).exists()
