"""Stopping a sandbox: containers, network, init, namespaces, in this order."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from runtime.v1 import api_pb2
from triptych_errors import TriptychError

from triptych_runtime.containers import emit_sandbox, stop
from triptych_runtime.errors import SandboxNotReady
from triptych_runtime.lifecycle import each, fault
from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.namespaces import InitProcess
from triptych_runtime.node import Node
from triptych_runtime.sandboxes.change import change

log = logging.getLogger(__name__)


async def stop_sandbox(node: Node, record: SandboxRecord) -> None:
    """Stop a sandbox. Idempotent; a stop that runs is joined."""
    await node.flights.join(f"stop sandbox {record.id}", lambda: _stop(node, record.id))


async def _stop(node: Node, sandbox_id: str) -> None:
    before = node.state.sandboxes.get(sandbox_id)
    was_ready = before is not None and before.phase is SandboxPhase.READY
    if was_ready:
        # Not ready from here on: nothing can be created in it any more, whatever comes next.
        await change(node, sandbox_id, phase=SandboxPhase.NOT_READY)
        fault("stop_pod_sandbox.marked")
    node.flights.call_off(f"create {sandbox_id}_", SandboxNotReady(sandbox_id))
    await each(stop(node, container, 0) for container in node.state.containers_of(sandbox_id))
    fault("stop_pod_sandbox.containers")
    record = node.state.sandboxes.get(sandbox_id)
    if record is None:
        return
    await release_sandbox(node, record)
    record = await change(
        node, sandbox_id, network_ready=False, init_pid=0, init_start_ticks=0, namespaces={}
    )
    if was_ready and record is not None:
        log.info("stopped pod sandbox", extra={"sandbox": record.id})
        emit_sandbox(node, record, api_pb2.CONTAINER_STOPPED_EVENT)


async def release_sandbox(node: Node, record: SandboxRecord, *, keep_pins: bool = True) -> None:
    """Give back what a sandbox holds: network, init, namespaces, files, own cgroups. Idempotent.

    Every step is tried, whatever became of those before.

    :param keep_pins: keep the namespaces of a pod whose network could not be given back, for the next try.
    :raises TriptychError, OSError: what the first step that failed raised.
    """
    netns = record.namespaces.get("net")
    failures: list[Exception] = []

    async def step(point: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (TriptychError, OSError) as error:
            extra = {"sandbox": record.id, "step": point, "error": str(error)}
            log.warning("a pod sandbox could not give back all that it holds", extra=extra)
            failures.append(error)
        fault(f"stop_pod_sandbox.{point}")

    if record.network_ready:
        await step("network", lambda: node.network.teardown(record.id, Path(netns) if netns else None))
    detached = not failures
    if record.init_pid:
        init = InitProcess(record.init_pid, record.init_start_ticks)
        await step("init", lambda: node.init.stop(init))
    if detached or not keep_pins:
        await step("namespaces", lambda: node.namespaces.destroy(record.id))
    await step("files", lambda: node.files.destroy(record.id))
    await step("cgroup", lambda: _remove_cgroups(node, record))
    if failures:
        raise failures[0]


async def _remove_cgroups(node: Node, record: SandboxRecord) -> None:
    if record.options.pid == api_pb2.POD:
        await node.cgroups.resolve(node.cgroups.container_path(record.cgroup_parent, record.id)).remove()
    if record.owns_cgroup:
        # Those of its ended containers lie below the pod's.
        await node.flights.settled(*(f"release {c.id}" for c in node.state.containers_of(record.id)))
        await node.cgroups.remove_pod(record.id)
