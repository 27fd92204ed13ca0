"""Sandboxes that lose what makes them ready, though nobody asked for their end."""

from __future__ import annotations

import logging

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.containers import emit_sandbox
from triptych_runtime.model import SandboxPhase
from triptych_runtime.node import Node

log = logging.getLogger(__name__)


async def lose(node: Node, sandbox_id: str, problem: str) -> None:
    """Show a sandbox as not ready and tell of it; nothing happens to one that is not ready already.

    What it still holds is given back when it is stopped.

    :param problem: what is gone, for the log.
    :raises StoreFailed: when it cannot be written down; it is shown and told all the same.
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
