"""Stopping a sandbox: containers, network, init, namespaces, in this order."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.containers import emit_sandbox, stop
from triptych_runtime.lifecycle import fault
from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.namespaces import InitProcess
from triptych_runtime.node import Node

log = logging.getLogger(__name__)


async def stop_sandbox(node: Node, record: SandboxRecord) -> None:
    """Stop a sandbox. Idempotent; a stop that runs is joined."""
    await node.flights.join(f"stop sandbox {record.id}", lambda: _stop(node, record.id))


async def _stop(node: Node, sandbox_id: str) -> None:
    record = node.state.sandboxes.get(sandbox_id)
    if record is None:
        return
    was_ready = record.phase is SandboxPhase.READY
    if was_ready:
        # Not ready from here on: nothing can be created in it any more, whatever comes next.
        record = msgspec.structs.replace(record, phase=SandboxPhase.NOT_READY)
        await node.state.save(record)
        fault("stop_pod_sandbox.marked")
    await _stop_containers(node, record)
    fault("stop_pod_sandbox.containers")
    record = await release_sandbox(node, record)
    await node.state.save(record)
    if was_ready:
        log.info("stopped pod sandbox", extra={"sandbox": record.id})
        emit_sandbox(node, record, api_pb2.CONTAINER_STOPPED_EVENT)


async def _stop_containers(node: Node, record: SandboxRecord) -> None:
    async with asyncio.TaskGroup() as group:
        for container in node.state.containers_of(record.id):
            group.create_task(stop(node, container, 0))


async def release_sandbox(node: Node, record: SandboxRecord) -> SandboxRecord:
    """Give back what a sandbox holds: network, init, namespaces, files, own cgroup. Idempotent."""
    if record.network_ready:
        netns = record.namespaces.get("net")
        await node.network.teardown(record.id, Path(netns) if netns else None)
        fault("stop_pod_sandbox.network")
        record = msgspec.structs.replace(record, network_ready=False)
        await node.state.save(record)
    if record.init_pid:
        await node.init.stop(InitProcess(record.init_pid, record.init_start_ticks))
        fault("stop_pod_sandbox.init")
    await node.namespaces.destroy(record.id)
    fault("stop_pod_sandbox.namespaces")
    await node.files.destroy(record.id)
    if record.options.pid == api_pb2.POD:
        await node.cgroups.resolve(node.cgroups.container_path(record.cgroup_parent, record.id)).remove()
    if record.owns_cgroup:
        await wait_for_releases(node, record.id)
        await node.cgroups.remove_pod(record.id)
    fault("stop_pod_sandbox.cgroup")
    return msgspec.structs.replace(record, init_pid=0, init_start_ticks=0, namespaces={})


async def wait_for_releases(node: Node, sandbox_id: str) -> None:
    """Wait until the cgroups of the sandbox's ended containers are gone: theirs lie below the pod's."""
    running = (node.flights.get(f"release {c.id}") for c in node.state.containers_of(sandbox_id))
    tasks = [task for task in running if task is not None]
    if tasks:
        await asyncio.wait(tasks)
