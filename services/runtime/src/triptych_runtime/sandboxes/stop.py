"""Stopping a sandbox: containers, network, init, namespaces, in this order."""

from __future__ import annotations

import logging

from runtime.v1 import api_pb2

from triptych_runtime.containers import emit_sandbox, stop
from triptych_runtime.containers.exits import plugins_told_of_stop
from triptych_runtime.errors import SandboxNotReady
from triptych_runtime.lifecycle import each, fault
from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.sandboxes.change import change
from triptych_runtime.sandboxes.release import release_sandbox

log = logging.getLogger(__name__)


async def stop_sandbox(node: Node, record: SandboxRecord) -> None:
    """Stop a sandbox. Idempotent; a stop that runs is joined."""
    await node.flights.join(f"stop sandbox {record.id}", lambda: _stop(node, record.id))


async def _stop(node: Node, sandbox_id: str) -> None:
    # Not ready from here on: nothing can be created in it any more, whatever comes next.
    marked = await change(node, sandbox_id, only=SandboxPhase.READY, phase=SandboxPhase.NOT_READY)
    try:
        if marked is not None:
            fault("stop_pod_sandbox.marked")
        await _end(node, sandbox_id)
        if marked is not None:
            log.info("stopped pod sandbox", extra={"sandbox": sandbox_id})
    finally:
        # Told by the attempt that marked it, and so once, also when something is still to be given back.
        record = node.state.sandboxes.get(sandbox_id)
        if marked is not None and record is not None:
            emit_sandbox(node, record, api_pb2.CONTAINER_STOPPED_EVENT)


async def _end(node: Node, sandbox_id: str) -> None:
    node.flights.call_off(f"create {sandbox_id}_", SandboxNotReady(sandbox_id))
    await each(stop(node, container, 0) for container in node.state.containers_of(sandbox_id))
    fault("stop_pod_sandbox.containers")
    record = node.state.sandboxes.get(sandbox_id)
    if record is None:
        return
    await each(plugins_told_of_stop(node, ended.id) for ended in node.state.containers_of(sandbox_id))
    await node.nri.stop_pod_sandbox(record)
    fault("stop_pod_sandbox.nri")
    await release_sandbox(node, record)
    await change(node, sandbox_id, network_ready=False, init_pid=0, init_start_ticks=0, namespaces={})
