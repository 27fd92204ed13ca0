"""Finishing what was half done, taking up what lives, and clearing away what nobody owns.

The kernel, the monitor's exit files and the OCI runtime's state are the truth. One item that fails is
logged and left for the next start; it never keeps the others, or the daemon, from going on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable

import msgspec
from triptych_errors import TriptychError
from triptych_linux.pidfd import ProcessIdentity

from triptych_runtime import clock
from triptych_runtime.containers import watch
from triptych_runtime.containers.exits import handle_exit, release
from triptych_runtime.containers.remove import discard
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.monitor import Exit
from triptych_runtime.monitor.exits import read_exit
from triptych_runtime.namespaces import InitProcess
from triptych_runtime.node import Node
from triptych_runtime.recovery.orphans import remove_orphans
from triptych_runtime.sandboxes import discard_sandbox
from triptych_runtime.sandboxes.stop import release_sandbox

log = logging.getLogger(__name__)

#: Items worked on at once; each is mostly waiting.
_PARALLEL = 16


async def reconcile(node: Node, *, rebooted: bool) -> None:
    """Bring records and kernel together."""
    containers = list(node.state.containers.values())
    await _all(_container(node, record, rebooted) for record in containers)
    await _all(_sandbox(node, record, rebooted) for record in list(node.state.sandboxes.values()))
    await node.database.set_meta("boot_id", clock.boot_id())


async def clean_up(node: Node) -> None:
    """What may be done behind the first answers."""
    try:
        await remove_orphans(node)
    except (TriptychError, OSError) as error:
        log.warning("removing orphans failed", extra={"error": str(error)})


async def _all(work: Iterable[Awaitable[None]]) -> None:
    gate = asyncio.Semaphore(_PARALLEL)

    async def one(item: Awaitable[None]) -> None:
        async with gate:
            try:
                await item
            except (TriptychError, OSError, ExceptionGroup) as error:
                log.warning("an item could not be reconciled", extra={"error": str(error)})

    async with asyncio.TaskGroup() as group:
        for item in work:
            group.create_task(one(item))


async def _container(node: Node, record: ContainerRecord, rebooted: bool) -> None:
    match record.phase:
        case ContainerPhase.CREATING | ContainerPhase.REMOVING:
            await discard(node, record)
            await node.state.delete(record)
            log.info(
                "removed a half-made container", extra={"container": record.id, "phase": record.phase.value}
            )
        case ContainerPhase.STARTING:
            await _half_started(node, record)
        case ContainerPhase.RUNNING:
            await _running(node, record)
        case ContainerPhase.EXITED:
            if rebooted:
                await node.state.save(record)
            await _leftovers(node, record)
        case ContainerPhase.CREATED:
            pass


async def _half_started(node: Node, record: ContainerRecord) -> None:
    """The start was cut off: undone, so that the kubelet's retry can start it anew."""
    await release(node, record)
    node.exits.remove_file(record.id)
    await node.state.save(msgspec.structs.replace(record, phase=ContainerPhase.CREATED))
    log.info("undid a half-done start", extra={"container": record.id})


async def _running(node: Node, record: ContainerRecord) -> None:
    if ProcessIdentity(record.pid, record.start_ticks).alive():
        watch(node, record)
        return
    found = await asyncio.to_thread(read_exit, node.paths.exits, record.id)
    await handle_exit(node, found or Exit(record.id, None, clock.now()))


async def _leftovers(node: Node, record: ContainerRecord) -> None:
    """An exit was recorded, but the daemon ended before it had cleaned up."""
    handler = node.handlers.find(record.handler)
    known = handler is not None and (handler.runtime.root / record.id).exists()
    if known or node.cgroups.resolve(record.cgroups_path).exists():
        await release(node, record)


async def _sandbox(node: Node, record: SandboxRecord, rebooted: bool) -> None:
    match record.phase:
        case SandboxPhase.CREATING | SandboxPhase.REMOVING:
            for container in node.state.containers_of(record.id):
                await discard(node, container)
                await node.state.delete(container)
            await discard_sandbox(node, record)
            await node.state.delete(record)
            log.info(
                "removed a half-made sandbox", extra={"sandbox": record.id, "phase": record.phase.value}
            )
        case SandboxPhase.NOT_READY:
            if rebooted or record.network_ready or record.namespaces:
                # Its addresses go back now, and not when the kubelet comes to remove it.
                await node.state.save(await release_sandbox(node, record))
        case SandboxPhase.READY:
            await _ready(node, record)


async def _ready(node: Node, record: SandboxRecord) -> None:
    problem = ""
    pinned = node.namespaces.get(record.id).paths()
    missing = sorted(set(record.namespaces) - set(pinned))
    if missing:
        problem = f"its namespaces are gone: {', '.join(missing)}"
    elif record.init_pid and not node.init.resume(InitProcess(record.init_pid, record.init_start_ticks)):
        problem = "its init process is gone"
    if problem:
        log.warning("a sandbox is not ready any more", extra={"sandbox": record.id, "problem": problem})
        await node.state.save(msgspec.structs.replace(record, phase=SandboxPhase.NOT_READY))
