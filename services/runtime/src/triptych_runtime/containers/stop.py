"""Stopping a container."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from runtime.v1 import api_pb2
from triptych_errors import TriptychError

from triptych_runtime.errors import StopTimeout
from triptych_runtime.lifecycle import Grace, fault
from triptych_runtime.model import ContainerPhase, ContainerRecord
from triptych_runtime.monitor.exits import FILE_GRACE
from triptych_runtime.node import Node

log = logging.getLogger(__name__)


async def stop(node: Node, record: ContainerRecord, seconds: float) -> None:
    """Stop a container: its stop signal, then SIGKILL after `seconds`; 0 kills at once.

    The grace counts from the signal: what holds the container's lock (a start, a checkpoint) does not use it
    up. One stop runs a container. A later call joins it and can only shorten its grace.

    :raises StopTimeout: when a process does not end after SIGKILL.
    """
    starting = record.phase is ContainerPhase.STARTING or f"start {record.id}" in node.flights
    if not record.running and not starting:
        return
    if node.graces.setdefault(record.id, Grace(seconds)).shorten(seconds):
        node.stop_changes.notify(record.id, None)
    await node.flights.join(f"stop {record.id}", lambda: _stop(node, record))


async def _stop(node: Node, record: ContainerRecord) -> None:
    try:
        async with node.locks.hold(record.id):  # a start that runs comes to its end first
            current = node.state.containers.get(record.id)
        if current is None or not current.running:
            return
        if node.graces[record.id].left() > 0:
            fault("stop_container.signal")
            node.exits.signal(record.id, current.stop_signal)
            node.graces[record.id].begin()
            if await _exited_in_time(node, current):
                return
        await _kill(node, current)
    finally:
        node.graces.pop(record.id, None)


async def _exited_in_time(node: Node, record: ContainerRecord) -> bool:
    """Wait for the exit until the grace is over, which later calls may shorten."""
    exits, changes = node.exit_waits.expecting, node.stop_changes.expecting
    while not _ended(node, record):
        with exits(record.id) as exited, changes(record.id) as changed:
            left = node.graces[record.id].left()
            if left <= 0:
                return False
            await asyncio.wait((exited, changed), timeout=left, return_when=asyncio.FIRST_COMPLETED)
    return True


def _ended(node: Node, record: ContainerRecord) -> bool:
    current = node.state.containers.get(record.id)
    return current is None or not current.running


async def _kill(node: Node, record: ContainerRecord) -> None:
    """SIGKILL the first process, and with it everything in the container's cgroup."""
    fault("stop_container.kill")
    waiting = asyncio.ensure_future(node.exit_waits.wait(record.id, node.settings.deadlines.kill))
    try:
        if _ended(node, record):
            return
        node.exits.signal(record.id, signal.SIGKILL)
        if _shares_pids(record):
            await _kill_cgroup(node, record)
        await _await_end(node, record, waiting)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _await_end(node: Node, record: ContainerRecord, waiting: asyncio.Future[ContainerRecord]) -> None:
    done, _ = await asyncio.wait((waiting,), timeout=0.5)
    if not done and not _ended(node, record):
        await _kill_cgroup(node, record)  # frozen, or children that hold the first process back
    try:
        await waiting
    except TimeoutError:
        if _ended(node, record) or await _told_late(node, record):
            return
        states = await asyncio.to_thread(_states, node, record)
        raise StopTimeout(
            f"stop container {record.id}: alive {node.settings.deadlines.kill:g} s after SIGKILL: {states}",
            hint="state D waits in the kernel, as a rule for storage or a network file system",
        ) from None


async def _told_late(node: Node, record: ContainerRecord) -> bool:
    """Whether only the monitor hangs: the process has ended, and its exit is told without the monitor."""
    if not node.exits.ending(record.id):
        return False
    with contextlib.suppress(TimeoutError):
        await node.exit_waits.wait(record.id, FILE_GRACE + 1.0)
    return _ended(node, record)


async def _kill_cgroup(node: Node, record: ContainerRecord) -> None:
    try:
        await node.cgroups.resolve(record.cgroups_path).kill()
    except (TriptychError, OSError) as error:
        log.warning("killing a cgroup failed", extra={"container": record.id, "error": str(error)})


def _shares_pids(record: ContainerRecord) -> bool:
    """Whether the end of the first process leaves others alive: it is no init of an own PID namespace."""
    return record.config.linux.security_context.namespace_options.pid != api_pb2.CONTAINER


def _states(node: Node, record: ContainerRecord) -> str:
    found = []
    for pid in node.cgroups.resolve(record.cgroups_path).procs()[:10] or [record.pid]:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        found.append(f"{pid} {name} state {rest.split()[0]}")
    return ", ".join(found) or "none found"
