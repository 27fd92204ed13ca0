"""Sandboxes that lose what makes them ready, though nobody asked for their end."""

from __future__ import annotations

import logging

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.containers import emit_sandbox
from triptych_runtime.errors import SandboxNotReady
from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.node import Node

log = logging.getLogger(__name__)


def lost_namespaces(node: Node, record: SandboxRecord) -> str:
    """Which namespaces of a sandbox are not pinned any more, for people; "" for none."""
    return ", ".join(sorted(set(record.namespaces) - set(node.namespaces.get(record.id).paths())))


async def require_ready(node: Node, record: SandboxRecord) -> None:
    """Refuse a sandbox in which nothing can be started, and show it as not ready from now on.

    :raises SandboxNotReady: it was stopped, or somebody unmounted its namespaces.
    """
    if record.phase is SandboxPhase.READY:
        lost = lost_namespaces(node, record)
        if not lost:
            return
        await lose(node, record.id, f"its namespaces are gone: {lost}")
    raise SandboxNotReady(record.id)


async def lose(node: Node, sandbox_id: str, problem: str) -> None:
    """Show a sandbox as not ready and tell of it; nothing happens to one that is not ready already.

    What it still holds is given back when it is stopped.

    :param problem: what is gone, for the log.
    """
    async with node.locks.hold(sandbox_id):
        current = node.state.sandboxes.get(sandbox_id)
        if current is None or current.phase is not SandboxPhase.READY:
            return
        log.warning("a sandbox is not ready any more", extra={"sandbox": sandbox_id, "problem": problem})
        lost = msgspec.structs.replace(current, phase=SandboxPhase.NOT_READY)
        try:
            await node.state.show(lost)
        finally:
            emit_sandbox(node, lost, api_pb2.CONTAINER_STOPPED_EVENT)


def on_init_end(node: Node, sandbox_id: str) -> None:
    """The init of a pod has ended: no process can be started in its PID namespace any more."""
    record = node.state.sandboxes.get(sandbox_id)
    if record is None or record.phase not in (SandboxPhase.CREATING, SandboxPhase.READY):
        return

    async def work() -> None:
        await node.flights.settled(f"run {record.key}")
        await lose(node, sandbox_id, "its init process has ended")

    node.flights.background(f"lose {sandbox_id}", work)
