"""RestorePod (CRI 0.37): a pod with containers that StartContainer continues from a checkpoint."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.checkpoint.capture import IMAGES
from triptych_runtime.checkpoint.manifest import ContainerEntry, read_manifest
from triptych_runtime.checkpoint.rootfs import apply_diff
from triptych_runtime.errors import InvalidArgument, NameInUse
from triptych_runtime.lifecycle import Undo
from triptych_runtime.node import Node
from triptych_runtime.rpc.create_container import create_container
from triptych_runtime.rpc.run_pod_sandbox import run_pod_sandbox
from triptych_runtime.sandboxes import remove_sandbox


async def restore_pod(node: Node, request: api_pb2.RestorePodRequest) -> api_pb2.RestorePodResponse:
    """Make a sandbox and its containers as they were; the containers are created, not yet running.

    Containers are matched by name. The checkpoint is only read: its images are copied, so that it may be
    deleted after this call. On an error nothing remains. A retry joins the restore that runs.

    :raises CheckpointUnreadable: for a path that holds no checkpoint. :raises InvalidArgument: for options
        (none is known), or configs that do not match the checkpoint's containers.
    :raises CheckpointImpossible: where CRIU is missing. :raises NameInUse: when the pod exists.
    """
    if request.options:
        raise InvalidArgument(f"options: unknown: {', '.join(sorted(request.options))}")
    source = Path(request.checkpoint_path)
    manifest = await asyncio.to_thread(read_manifest, source)
    entries = _match(manifest.containers, list(request.container_configs))
    await node.criu.require(node.handlers.get(request.runtime_handler))
    meta = request.config.metadata
    name = f"{meta.name}_{meta.namespace}_{meta.uid}_{meta.attempt}"
    if f"restore {name}" not in node.flights and node.state.by_key(name) is not None:
        raise NameInUse(f"pod sandbox {meta.namespace}/{meta.name} attempt {meta.attempt} exists already")
    return await node.flights.join(f"restore {name}", lambda: _restore(node, request, source, entries))


async def _restore(
    node: Node,
    request: api_pb2.RestorePodRequest,
    source: Path,
    entries: list[tuple[api_pb2.ContainerConfig, ContainerEntry]],
) -> api_pb2.RestorePodResponse:
    run = api_pb2.RunPodSandboxRequest(config=request.config, runtime_handler=request.runtime_handler)
    sandbox_id = (await run_pod_sandbox(node, run)).pod_sandbox_id
    response = api_pb2.RestorePodResponse(pod_sandbox_id=sandbox_id)
    async with Undo(sandbox_id) as undo:
        undo.push("sandbox", lambda: remove_sandbox(node, node.state.sandbox(sandbox_id)))
        for config, entry in entries:
            create = api_pb2.CreateContainerRequest(
                pod_sandbox_id=sandbox_id, config=config, sandbox_config=request.config
            )
            container_id = (await create_container(node, create)).container_id
            await _prepare(node, container_id, source / entry.directory)
            response.restored_containers.add(name=entry.name, container_id=container_id)
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

    await asyncio.to_thread(work)
    async with node.locks.hold(container_id):
        record = node.state.container(container_id)
        await node.state.save(msgspec.structs.replace(record, restored_from=str(images)))
