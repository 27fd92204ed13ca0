"""CreateContainer: root file system, OCI spec and bundle; the OCI runtime itself runs at StartContainer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from runtime.v1 import api_pb2
from triptych.rootfs.v1 import rootfs_pb2
from triptych_linux.process import shielded
from triptych_oci import ImageConfig, parse_image_config
from triptych_service.tracing import span

from triptych_runtime import clock
from triptych_runtime.bundles import mount_image_volume, mount_rootfs, remove_bundle, write_bundle
from triptych_runtime.containers import emit, pin_target, sandbox_context
from triptych_runtime.containers.adjusting import ask_plugins
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
    is_image,
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
    userns = sandbox.namespaces.get("user")
    userns_path = Path(userns) if userns else None
    limit = size_limit(node.settings.containers.size_limit_annotation, config, sandbox.config)
    undo.push("root filesystem", lambda: node.images.remove(record.id))
    with span("prepare rootfs", image=config.image.image):
        prepared = await node.images.prepare_rootfs(
            record.id,
            config.image.image,
            size_limit=limit,
            mount_label=sandbox.selinux_mount_label,
            **_mappings(sandbox),
        )
    image = parse_image_config(prepared.image_config)
    bundle, rootfs, volumes = (
        node.paths.bundle(record.id),
        node.paths.rootfs(record.id),
        node.paths.volumes(record.id),
    )
    undo.push("bundle", lambda: asyncio.to_thread(remove_bundle, bundle, volumes))
    fault("create_container.rootfs")
    image_volumes = await _image_volumes(node, sandbox, record, userns_path, undo)
    target = await shielded(pin_target(node, record), STEP_DEADLINE)

    inputs = _inputs(node, handler, record, image, prepared, image_volumes.paths, target)

    def build() -> ContainerSpec:
        mount_rootfs(prepared.overlay, rootfs, userns_path)
        fault("create_container.mounted")
        return build_container_spec(node.host, handler.features, sandbox_context(node, sandbox), inputs)

    def build_and_write() -> ContainerSpec:
        spec = build()
        write_bundle(bundle, rootfs, spec)
        return spec

    # A thread cannot be cancelled, and what it still makes must not come after it was undone.
    with span("write bundle"):
        if node.nri.active:
            spec = await shielded(asyncio.to_thread(build), node.settings.deadlines.create)
            record, spec = await ask_plugins(node, sandbox, handler, record, inputs, spec, undo)
            writing = asyncio.to_thread(write_bundle, bundle, rootfs, spec)
            await shielded(writing, node.settings.deadlines.create)
        else:
            spec = await shielded(asyncio.to_thread(build_and_write), node.settings.deadlines.create)
    await _relabel(spec)
    user = spec.user
    return msgspec.structs.replace(
        record,
        image_id=prepared.image_id,
        image_ref=prepared.image_ref,
        user=User(user.uid, user.gid, tuple(user.groups)),
        stop_signal=spec.stop_signal.number,
        mounts=_with_digests(spec.mounts, image_volumes.image_ids),
        image_volumes=tuple(image_volumes.keys),
        size_limit=limit,
    )


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


@dataclass(slots=True)
class _ImageVolumes:
    """Mounted image volumes, by the index of their mount in the request.

    :ivar keys: at the image daemon.
    """

    paths: dict[int, Path] = field(default_factory=dict)
    image_ids: dict[int, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


async def _image_volumes(
    node: Node, sandbox: SandboxRecord, record: ContainerRecord, userns: Path | None, undo: Undo
) -> _ImageVolumes:
    """Prepare and mount the image volumes."""
    made = _ImageVolumes()
    for index, mount in enumerate(record.config.mounts):
        if not is_image(mount):
            continue
        if not made.keys:
            undo.push("image volumes", lambda: node.images.remove(record.id, prefix=True))
        key = f"{record.id}/{index}"
        made.keys.append(key)
        image = mount.image.image_ref or mount.image.image
        prepared = await node.images.prepare_volume(
            key, image, mount.image_sub_path, mount_label=sandbox.selinux_mount_label, **_mappings(sandbox)
        )
        target = node.paths.image_volume(record.id, index)
        mounting = asyncio.to_thread(mount_image_volume, prepared, target, userns)
        made.paths[index] = await shielded(mounting, node.settings.deadlines.create)
        made.image_ids[index] = prepared.image_id
        fault("create_container.image_volume")
    return made


def _with_digests(
    mounts: tuple[api_pb2.Mount, ...], image_ids: Mapping[int, str]
) -> tuple[api_pb2.Mount, ...]:
    """The mounts as ContainerStatus tells them: an image volume with what was mounted (KEP-5365)."""
    told = []
    for index, mount in enumerate(mounts):
        if index in image_ids:
            copy = api_pb2.Mount()
            copy.CopyFrom(mount)
            copy.image.image_ref = image_ids[index]
            mount = copy
        told.append(mount)
    return tuple(told)


def _mappings(sandbox: SandboxRecord) -> dict[str, list[rootfs_pb2.IdMapping]]:
    options = sandbox.options
    if "user" not in sandbox.namespaces:
        return {}

    def convert(mappings: object) -> list[rootfs_pb2.IdMapping]:
        return [
            rootfs_pb2.IdMapping(host_id=m.host_id, container_id=m.container_id, length=m.length)
            for m in mappings  # type: ignore[attr-defined]
        ]

    users = options.userns_options
    return {"uid_mappings": convert(users.uids), "gid_mappings": convert(users.gids)}


async def _relabel(spec: ContainerSpec) -> None:
    if spec.relabels:
        from triptych_runtime.spec.selinux import relabel

        for entry in spec.relabels:
            await asyncio.to_thread(relabel, entry.path, entry.label)
