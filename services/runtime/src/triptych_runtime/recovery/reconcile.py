"""Finishing what was half done, taking up what lives, and clearing away what nobody owns.

The kernel, the monitor's exit files and the OCI runtime's state are the truth. What takes an OCI runtime or
a CNI plugin is work of its own for each item, which an RPC on that item joins or awaits: one that hangs or
fails never keeps the others, or the daemon, from going on.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec
from triptych_errors import TriptychError

from triptych_runtime import clock
from triptych_runtime.containers import watch
from triptych_runtime.containers.exits import release, undo_start
from triptych_runtime.containers.remove import finish as finish_container
from triptych_runtime.containers.remove import tell_plugins_of_removal
from triptych_runtime.lifecycle import each
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.namespaces import InitProcess
from triptych_runtime.node import Node
from triptych_runtime.recovery.orphans import remove_orphans
from triptych_runtime.sandboxes import finish_sandbox, lose, lost_namespaces, stop_sandbox

log = logging.getLogger(__name__)

#: Items worked on at once; each is mostly waiting.
_PARALLEL = 16
#: Seconds after which one more is begun although so many still run: they may hang.
_STAGGER = 1.0
#: Seconds that the daemon waits for all of it before it takes changes.
_PATIENCE = 2.0

Work = Callable[[], Coroutine[Any, Any, object]]


async def reconcile(node: Node, *, rebooted: bool) -> None:
    """Bring records and kernel together.

    What is not done within `_PATIENCE` goes on behind the first answers; after a reboot all of it does:
    nothing is alive, and all records say so already.
    """
    if rebooted:
        await each(node.state.show(sandbox) for sandbox in node.state.sandboxes.values())
        await each(node.state.show(container) for container in node.state.containers.values())
    await node.database.set_meta("boot_id", clock.boot_id())
    await asyncio.to_thread(shutil.rmtree, node.paths.scratch, ignore_errors=True)
    for container in list(node.state.containers.values()):
        if container.running:
            watch(node, container)
            await asyncio.sleep(0)
    for sandbox in list(node.state.sandboxes.values()):
        if sandbox.phase is SandboxPhase.READY:
            await _check(node, sandbox)
    work = dict(_work(node, rebooted))
    for identity in await asyncio.to_thread(node.pauses.marked):
        work[f"resume {identity}"] = functools.partial(_resume, node, identity)
    for key in [key for key in work if key.startswith("undo start ")]:
        node.flights.background(key, work.pop(key))
    node.flights.background("reconcile", lambda: _run(node, work))
    if not rebooted:
        await _wait(node)


async def _wait(node: Node) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            while len(node.flights):
                await node.flights.settled_below("")
    except TimeoutError:
        log.warning("reconciling goes on in the background", extra={"items": len(node.flights)})


async def clean_up(node: Node) -> None:
    """What may be done behind the first answers."""
    try:
        await remove_orphans(node)
    except (TriptychError, OSError) as error:
        log.warning("removing orphans failed", extra={"error": str(error)})


async def _run(node: Node, work: dict[str, Work]) -> None:
    """Begin all work, so many at once as long as they come to their ends."""
    running: set[asyncio.Future[Any]] = set()
    for key, item in work.items():
        node.flights.background(key, item)
        task = node.flights.get(key)
        if task is not None:
            running.add(task)
        if len(running) >= _PARALLEL:
            _, running = await asyncio.wait(running, timeout=_STAGGER, return_when=asyncio.FIRST_COMPLETED)
    if running:
        await asyncio.wait(running)


def _work(node: Node, rebooted: bool) -> Iterator[tuple[str, Work]]:
    """What is to be done, under the keys that RPCs on the same thing join."""
    for container in node.state.containers.values():
        found = _container_work(node, container)
        if found is not None:
            yield found
    for sandbox in node.state.sandboxes.values():
        found = _sandbox_work(node, sandbox, rebooted)
        if found is not None:
            yield found


def _container_work(node: Node, record: ContainerRecord) -> tuple[str, Work] | None:
    match record.phase:
        case ContainerPhase.CREATING | ContainerPhase.REMOVING:
            return f"remove {record.id}", lambda: _remove_container(node, record)
        case ContainerPhase.STARTING:
            return f"undo start {record.id}", lambda: _half_started(node, record)
        case ContainerPhase.EXITED if _left_over(node, record):
            # Its exit was recorded, but the daemon ended before it had cleaned up.
            return f"release {record.id}", lambda: release(node, record, end_monitor=True)
    return None


def _sandbox_work(node: Node, record: SandboxRecord, rebooted: bool) -> tuple[str, Work] | None:
    if record.restoring:
        return f"remove sandbox {record.id}", lambda: _undo_restore(node, record)
    match record.phase:
        case SandboxPhase.CREATING | SandboxPhase.REMOVING:
            return f"remove sandbox {record.id}", lambda: _remove_sandbox(node, record)
        case SandboxPhase.NOT_READY if rebooted or record.network_ready or record.namespaces:
            # Its addresses go back now, and not when the kubelet comes to remove it.
            return f"reconcile sandbox {record.id}", lambda: stop_sandbox(node, record)
    return None


async def _resume(node: Node, container_id: str) -> None:
    """Let a container go on that a checkpoint held when the daemon ended."""
    record = node.state.containers.get(container_id)
    handler = node.handlers.find(record.handler) if record is not None and record.running else None
    if handler is None:
        await asyncio.to_thread(node.pauses.forget, container_id)
        return
    async with node.locks.hold(container_id):
        await node.pauses.resume(handler.runtime, container_id)
    log.info("resumed a container that a checkpoint held", extra={"container": container_id})


async def _remove_container(node: Node, record: ContainerRecord) -> None:
    async with node.locks.hold(record.id):
        await finish_container(node, record)
    await tell_plugins_of_removal(node, record)


async def _half_started(node: Node, record: ContainerRecord) -> None:
    """The start was cut off: undone, so that the kubelet's retry can start it anew."""
    async with node.locks.hold(record.id):
        try:
            await undo_start(node, record)
        finally:
            await node.state.show(msgspec.structs.replace(record, phase=ContainerPhase.CREATED))
    log.info("undid a half-done start", extra={"container": record.id})


def _left_over(node: Node, record: ContainerRecord) -> bool:
    handler = node.handlers.find(record.handler)
    known = handler is not None and (handler.runtime.root / record.id).exists()
    return known or node.cgroups.resolve(record.cgroups_path).exists()


async def _remove_sandbox(node: Node, record: SandboxRecord) -> None:
    for container in node.state.containers_of(record.id):
        await node.flights.settled(f"remove {container.id}")
        if container.id in node.state.containers:
            await _remove_container(node, container)
    await finish_sandbox(node, record)


async def _undo_restore(node: Node, record: SandboxRecord) -> None:
    """A pod whose restore was cut off: its containers would start anew, and not go on."""
    removing = msgspec.structs.replace(record, phase=SandboxPhase.REMOVING)
    await node.state.show(removing)
    await _remove_sandbox(node, removing)


async def _check(node: Node, record: SandboxRecord) -> None:
    """Whether what makes a sandbox ready is still there."""
    problem = ""
    lost = lost_namespaces(node, record)
    if lost:
        problem = f"its namespaces are gone: {lost}"
    elif record.init_pid and not node.init.resume(
        record.id, InitProcess(record.init_pid, record.init_start_ticks)
    ):
        problem = "its init process is gone"
    if problem:
        await lose(node, record.id, problem)
