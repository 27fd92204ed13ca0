"""CheckpointPod (CRI 0.37): all containers of a pod, paused before the first is captured."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

from runtime.v1 import api_pb2
from triptych_linux.process import shielded

from triptych_runtime import clock
from triptych_runtime.checkpoint.capture import capture
from triptych_runtime.checkpoint.manifest import VERSION, ContainerEntry, PodManifest, write_manifest
from triptych_runtime.errors import InvalidArgument, SandboxNotReady
from triptych_runtime.lifecycle import fault
from triptych_runtime.model import ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.rpc.checkpoint_container import DEFAULT_DEADLINE

_CLEAN_UP_DEADLINE = 60.0


async def checkpoint_pod(node: Node, request: api_pb2.CheckpointPodRequest) -> api_pb2.CheckpointPodResponse:
    """Write a checkpoint of a ready pod into an empty directory; its containers go on running.

    All containers are paused before any is captured, stay paused until all are, and are resumed whatever
    the outcome. On an error the directory is as empty as it was.

    :raises InvalidArgument: for options (none is known), a directory that is not empty, or containers that
        are not exactly the running ones. :raises CheckpointImpossible: where CRIU is missing.
    """
    sandbox = node.state.sandbox(request.pod_sandbox_id)
    if sandbox.phase is not SandboxPhase.READY:
        raise SandboxNotReady(sandbox.id)
    if request.options:
        raise InvalidArgument(f"options: unknown: {', '.join(sorted(request.options))}")
    output = await asyncio.to_thread(_output, request.output_path)
    records = _records(node, sandbox, list(request.container_ids))
    for record in records:
        await node.criu.require(node.handlers.get(record.handler))
    try:
        await _capture_all(node, records, output)
        manifest = _manifest(sandbox, records)
        await asyncio.to_thread(write_manifest, output, manifest)
    except BaseException:
        await shielded(asyncio.to_thread(_empty, output), _CLEAN_UP_DEADLINE)
        raise
    return api_pb2.CheckpointPodResponse()


def _output(text: str) -> Path:
    if not os.path.isabs(text) or not os.path.isdir(text):
        raise InvalidArgument(f"output_path: {text!r} is no directory")
    if os.listdir(text):
        raise InvalidArgument(f"output_path: {text} is not empty")
    return Path(text)


def _records(node: Node, sandbox: SandboxRecord, wanted: list[str]) -> list[ContainerRecord]:
    running = {c.id: c for c in node.state.containers_of(sandbox.id) if c.running}
    if len(set(wanted)) != len(wanted):
        raise InvalidArgument("container_ids: an ID is given twice")
    if set(wanted) != set(running):
        listed = ", ".join(sorted(running)) or "none"
        raise InvalidArgument(f"container_ids: must be exactly the running containers: {listed}")
    return [running[identity] for identity in wanted]


async def _capture_all(node: Node, records: list[ContainerRecord], output: Path) -> None:
    async with AsyncExitStack() as stack:
        for identity in sorted(record.id for record in records):  # two callers must not wait for each other
            await stack.enter_async_context(node.locks.hold(identity))
        for record in records:
            runtime = node.handlers.get(record.handler).runtime
            await stack.enter_async_context(node.pauses.held(runtime, record.id))
            await runtime.pause(record.id)
        fault("checkpoint_pod.paused")
        for record in records:
            target = output / "containers" / record.name
            target.mkdir(parents=True)
            runtime = node.handlers.get(record.handler).runtime
            await capture(runtime, record, node.paths.bundle(record.id), target, DEFAULT_DEADLINE)
            fault("checkpoint_pod.captured")


def _manifest(sandbox: SandboxRecord, records: list[ContainerRecord]) -> PodManifest:
    meta = sandbox.config.metadata
    entries = (ContainerEntry(r.name, r.id, r.image_id, f"containers/{r.name}") for r in records)
    return PodManifest(
        VERSION, meta.name, meta.namespace, meta.uid, sandbox.handler, clock.now(), tuple(entries)
    )


def _empty(output: Path) -> None:
    for entry in output.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
