"""RestorePod (CRI 0.37): a pod with containers that StartContainer continues from a checkpoint."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
from runtime.v1 import api_pb2
from triptych_linux.process import shielded

from triptych_runtime.checkpoint.capture import IMAGES
from triptych_runtime.checkpoint.manifest import ContainerEntry, read_manifest
from triptych_runtime.checkpoint.rootfs import apply_diff
from triptych_runtime.errors import InvalidArgument, NameInUse
from triptych_runtime.lifecycle import Undo, fault
from triptych_runtime.model import SandboxPhase
from triptych_runtime.node import Node
from triptych_runtime.rpc.create_container import create_container
from triptych_runtime.rpc.run_pod_sandbox import run_pod_sandbox
from triptych_runtime.sandboxes import change, remove_sandbox


async def restore_pod(node: Node, request: api_pb2.RestorePodRequest) -> api_pb2.RestorePodResponse:
    """Make a sandbox and its containers as they were; the containers are created, not yet running.

    Containers are matched by name. The checkpoint is only read: its images are copied, so that it may be
    deleted after this call. On an error nothing remains. A retry joins the restore that runs, or finds its
    result, also without the checkpoint.

    :raises CheckpointUnreadable: for a path that holds no checkpoint. :raises InvalidArgument: for options
        (none is known), or configs that do not match the checkpoint's containers.
    :raises CheckpointImpossible: where CRIU is missing. :raises NameInUse: when the pod exists.
    """
    if request.options:
        raise InvalidArgument(f"options: unknown: {', '.join(sorted(request.options))}")
    meta = request.config.metadata
    name = f"{meta.name}_{meta.namespace}_{meta.uid}_{meta.attempt}"
    made = await node.flights.join(f"restore {name}", lambda: _restore(node, name, request))
    return await _existing(node, name, request) or made


async def _existing(
    node: Node, name: str, request: api_pb2.RestorePodRequest
) -> api_pb2.RestorePodResponse | None:
    """What an earlier call with the same request made, None for nothing.

    :raises NameInUse: when the pod is not what is asked for.
    """
    identity = node.state.by_key(name)
    if identity is None:
        return None
    await node.flights.settled(f"remove sandbox {identity}")  # one that a crash cut off is undone
    record = node.state.sandboxes.get(identity)
    if record is None:
        return None
    containers = {container.name: container for container in node.state.containers_of(record.id)}
    same = (
        record.phase is SandboxPhase.READY
        and not record.restoring
        and (record.restored_from, record.handler) == (request.checkpoint_path, request.runtime_handler)
        and record.config == request.config
        and len(containers) == len(request.container_configs)
        and all(
            (known := containers.get(config.metadata.name)) is not None and known.config == config
            for config in request.container_configs
        )
    )
    if not same:
        meta = request.config.metadata
        raise NameInUse(f"pod sandbox {meta.namespace}/{meta.name} attempt {meta.attempt} exists already")
    response = api_pb2.RestorePodResponse(pod_sandbox_id=record.id)
    for config in request.container_configs:
        found = containers[config.metadata.name]
        response.restored_containers.add(name=found.name, container_id=found.id)
    return response


async def _restore(node: Node, name: str, request: api_pb2.RestorePodRequest) -> api_pb2.RestorePodResponse:
    # Looked for within the flight: a retry may come while the restore that it asks for ends.
    found = await _existing(node, name, request)
    if found is not None:
        return found
    source = Path(request.checkpoint_path)
    manifest = await asyncio.to_thread(read_manifest, source)
    entries = _match(manifest.containers, list(request.container_configs))
    await node.criu.require(node.handlers.get(request.runtime_handler))
    return await _make(node, request, source, entries)


async def _make(
    node: Node,
    request: api_pb2.RestorePodRequest,
    source: Path,
    entries: list[tuple[api_pb2.ContainerConfig, ContainerEntry]],
) -> api_pb2.RestorePodResponse:
    run = api_pb2.RunPodSandboxRequest(config=request.config, runtime_handler=request.runtime_handler)
    made = await run_pod_sandbox(node, run, restored_from=request.checkpoint_path)
    sandbox_id = made.pod_sandbox_id
    response = api_pb2.RestorePodResponse(pod_sandbox_id=sandbox_id)
    async with Undo(sandbox_id) as undo:
        undo.push("sandbox", lambda: remove_sandbox(node, node.state.sandbox(sandbox_id)))
        fault("restore_pod.sandbox")
        for config, entry in entries:
            create = api_pb2.CreateContainerRequest(
                pod_sandbox_id=sandbox_id, config=config, sandbox_config=request.config
            )
            container_id = (await create_container(node, create)).container_id
            fault("restore_pod.container")
            await _prepare(node, container_id, source / entry.directory)
            response.restored_containers.add(name=entry.name, container_id=container_id)
        fault("restore_pod.prepared")
        await change(node, sandbox_id, durable=True, restoring=False)
    return response


def _match(
    entries: tuple[ContainerEntry, ...], configs: list[api_pb2.ContainerConfig]
) -> list[tuple[api_pb2.ContainerConfig, ContainerEntry]]:
    known = {entry.name: entry for entry in entries}
    names = [config.metadata.name for config in configs]
    if len(set(names)) != len(names) or set(names) != set(known):
        raise InvalidArgument(
            f"container_configs: {', '.join(sorted(names)) or 'none'}; "
            f"the checkpoint has {', '.join(sorted(known)) or 'none'}"
        )
    return [(config, known[config.metadata.name]) for config in configs]


async def _prepare(node: Node, container_id: str, source: Path) -> None:
    """Bring a created container to where its process images expect it."""
    images = node.paths.checkpoints / container_id

    def work() -> None:
        apply_diff(source, node.paths.rootfs(container_id))
        shutil.copytree(source / IMAGES, images)

    # A thread cannot be cancelled, and what it still makes must not come after it was undone.
    await shielded(asyncio.to_thread(work), node.settings.deadlines.create)
    async with node.locks.hold(container_id):
        record = node.state.container(container_id)
        await node.state.save(msgspec.structs.replace(record, restored_from=str(images)))
