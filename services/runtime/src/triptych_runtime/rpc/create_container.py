"""CreateContainer: root file system, OCI spec and bundle; the OCI runtime itself runs at StartContainer."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec
from runtime.v1 import api_pb2
from triptych.rootfs.v1 import rootfs_pb2
from triptych_linux.process import shielded
from triptych_oci import ImageConfig, parse_image_config
from triptych_service.tracing import span

from triptych_runtime import clock
from triptych_runtime.bundles import mount_rootfs, remove_bundle, write_bundle
from triptych_runtime.containers import emit, pin_target, sandbox_context
from triptych_runtime.containers.image_volumes import id_mappings, mount_image_volumes, with_digests
from triptych_runtime.containers.plugins import go_unasked
from triptych_runtime.errors import NameInUse, SandboxNotReady
from triptych_runtime.lifecycle import STEP_DEADLINE, Undo, deadline, fault
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord, User, new_id
from triptych_runtime.node import Node
from triptych_runtime.ociruntime import Handler
from triptych_runtime.sandboxes import require_ready
from triptych_runtime.settings import HandlerSettings
from triptych_runtime.sizes import size_limit
from triptych_runtime.spec import (
    ContainerInputs,
    ContainerSpec,
    RootfsView,
    build_container_spec,
    validate_container,
)

log = logging.getLogger(__name__)


async def create_container(
    node: Node, request: api_pb2.CreateContainerRequest
) -> api_pb2.CreateContainerResponse:
    """Create a container in a ready sandbox.

    A retry with the same sandbox, name and attempt joins the attempt that runs, or finds its result.

    :raises SandboxNotFound, SandboxNotReady: for the sandbox. :raises InvalidArgument: naming the field.
    :raises NotFound: for an image that is not here. :raises NameInUse: for another configuration or an
        exited container under the same name and attempt.
    """
    sandbox = node.state.sandbox(request.pod_sandbox_id)
    await require_ready(node, sandbox)
    handler = node.handlers.get(sandbox.handler)
    validate_container(request.config, sandbox.config, node.host, handler.features)
    meta = request.config.metadata
    key = f"{sandbox.id}_{meta.name}_{meta.attempt}"
    found = None if f"create {key}" in node.flights else _existing(node, key, request.config)
    if found is None:
        identity = await node.flights.join(
            f"create {key}", lambda: _create(node, sandbox, handler, request.config)
        )
        found = _existing(node, key, request.config) or identity
    return api_pb2.CreateContainerResponse(container_id=found)


def _existing(node: Node, key: str, config: api_pb2.ContainerConfig) -> str | None:
    """The container of this name and attempt, None for none, or one that is being removed.

    :raises NameInUse: when it is not what is asked for.
    """
    identity = node.state.by_key(key)
    record = node.state.containers.get(identity) if identity else None
    if record is None or record.phase in (ContainerPhase.CREATING, ContainerPhase.REMOVING):
        return None
    if record.phase is ContainerPhase.EXITED or record.config != config:
        state = record.phase.value if record.phase is ContainerPhase.EXITED else "configured otherwise"
        raise NameInUse(
            f"container {record.name!r} attempt {config.metadata.attempt} exists "
            f"in sandbox {record.sandbox_id} as {record.id} and is {state}",
            hint="remove it or raise the attempt",
        )
    return record.id


async def _create(
    node: Node, sandbox: SandboxRecord, handler: Handler, config: api_pb2.ContainerConfig
) -> str:
    identity = new_id()
    record = ContainerRecord(
        id=identity,
        sandbox_id=sandbox.id,
        phase=ContainerPhase.CREATING,
        config=config,
        handler=handler.name,
        created_at=clock.after(c.created_at for c in node.state.containers_of(sandbox.id)),
        cgroups_path=node.cgroups.container_path(sandbox.cgroup_parent, identity),
        log_path=_log_path(sandbox, config),
        resources=config.linux.resources if config.linux.HasField("resources") else None,
    )
    what = f"create container {record.name!r} in sandbox {sandbox.id}"
    async with deadline(node.settings.deadlines.create, what), Undo(record.id) as undo:
        await node.state.save(record)
        undo.push("record", lambda: node.state.delete(record))
        fault("create_container.record")
        record = await _build(node, sandbox, handler, record, undo)
        fault("create_container.built")
        if node.state.sandbox(sandbox.id).phase is not SandboxPhase.READY:  # stopped meanwhile
            raise SandboxNotReady(sandbox.id)
        record = msgspec.structs.replace(record, phase=ContainerPhase.CREATED)
        await node.state.save(record)
    await node.nri.container_created(sandbox, record)
    extra = {
        "container": record.id,
        "container_name": record.name,
        "sandbox": sandbox.id,
        "image": record.image_ref,
    }
    log.info("created container", extra=extra)
    emit(node, record, api_pb2.CONTAINER_CREATED_EVENT)
    return record.id


def _log_path(sandbox: SandboxRecord, config: api_pb2.ContainerConfig) -> str:
    if not config.log_path or not sandbox.config.log_directory:
        return ""
    return str(Path(sandbox.config.log_directory, config.log_path.lstrip("/")))


async def _build(
    node: Node, sandbox: SandboxRecord, handler: Handler, record: ContainerRecord, undo: Undo
) -> ContainerRecord:
    """Root file system, image volumes, spec, bundle: each registered to be undone before it begins."""
    config = record.config
    limit = size_limit(node.settings.containers.size_limit_annotation, config, sandbox.config)
    undo.push("root filesystem", lambda: node.images.remove(record.id))
    with span("prepare rootfs", image=config.image.image):
        prepared = await node.images.prepare_rootfs(
            record.id,
            config.image.image,
            size_limit=limit,
            mount_label=sandbox.selinux_mount_label,
            **id_mappings(sandbox),
        )
    image = parse_image_config(prepared.image_config)
    bundle, volumes = node.paths.bundle(record.id), node.paths.volumes(record.id)
    undo.push("bundle", lambda: asyncio.to_thread(remove_bundle, bundle, volumes))
    fault("create_container.rootfs")
    image_volumes = await mount_image_volumes(node, sandbox, record, _user_namespace(sandbox), undo)
    target = await shielded(pin_target(node, record), STEP_DEADLINE)
    inputs = _inputs(node, handler, record, image, prepared, image_volumes.paths, target)
    record, spec = await _write(node, sandbox, handler, record, inputs, prepared, undo)
    await _relabel(spec)
    user = spec.user
    return msgspec.structs.replace(
        record,
        image_id=prepared.image_id,
        image_ref=prepared.image_ref,
        user=User(user.uid, user.gid, tuple(user.groups)),
        stop_signal=spec.stop_signal.number,
        mounts=with_digests(spec.mounts, image_volumes.image_ids),
        image_volumes=tuple(image_volumes.keys),
        size_limit=limit,
    )


def _user_namespace(sandbox: SandboxRecord) -> Path | None:
    path = sandbox.namespaces.get("user")
    return Path(path) if path else None


async def _write(
    node: Node,
    sandbox: SandboxRecord,
    handler: Handler,
    record: ContainerRecord,
    inputs: ContainerInputs,
    prepared: rootfs_pb2.PrepareRootfsResponse,
    undo: Undo,
) -> tuple[ContainerRecord, ContainerSpec]:
    """Mount the root file system, build the spec, let plugins change it, and write the bundle."""

    def build() -> ContainerSpec:
        mount_rootfs(prepared.overlay, inputs.rootfs, _user_namespace(sandbox))
        fault("create_container.mounted")
        return build_container_spec(node.host, handler.features, sandbox_context(node, sandbox), inputs)

    def build_and_write() -> ContainerSpec:
        spec = build()
        write_bundle(inputs.bundle, inputs.rootfs, spec)
        return spec

    # A thread cannot be cancelled, and what it still makes must not come after it was undone.
    seconds = node.settings.deadlines.create
    with span("write bundle"):
        if not node.nri.active:
            go_unasked(node, sandbox, record, undo)
            return record, await shielded(asyncio.to_thread(build_and_write), seconds)
        from triptych_runtime.containers.adjusting import ask_plugins  # a part of what plugins bring

        spec = await shielded(asyncio.to_thread(build), seconds)
        record, spec = await ask_plugins(node, sandbox, handler, record, inputs, spec, undo)
        await shielded(asyncio.to_thread(write_bundle, inputs.bundle, inputs.rootfs, spec), seconds)
        return record, spec


def _inputs(
    node: Node,
    handler: Handler,
    record: ContainerRecord,
    image: ImageConfig,
    prepared: rootfs_pb2.PrepareRootfsResponse,
    image_volumes: dict[int, Path],
    target: Path | None,
) -> ContainerInputs:
    containers = node.settings.containers
    options = node.settings.handlers.get(handler.name, HandlerSettings())
    return ContainerInputs(
        container_id=record.id,
        config=record.config,
        image=image.settings,
        rootfs=node.paths.rootfs(record.id),
        files=RootfsView([node.paths.rootfs(record.id)]),
        bundle=node.paths.bundle(record.id),
        volumes=node.paths.volumes(record.id),
        cgroups_path=record.cgroups_path,
        image_volumes=image_volumes,
        target_pid_namespace=target,
        seccomp_root=Path(containers.seccomp_localhost_dir),
        image_ref=prepared.image_ref,
        cdi_dirs=tuple(Path(d) for d in containers.cdi_dirs),
        annotations=node.cgroups.spec_annotations(record.config.linux.resources),
        passthrough_annotations=options.annotations,
        privileged_host_devices=options.privileged_host_devices,
        cgroup_writable=options.cgroup_writable,
        device_ownership=containers.device_ownership,
    )


async def _relabel(spec: ContainerSpec) -> None:
    if spec.relabels:
        from triptych_runtime.spec.selinux import relabel

        for entry in spec.relabels:
            await asyncio.to_thread(relabel, entry.path, entry.label)
