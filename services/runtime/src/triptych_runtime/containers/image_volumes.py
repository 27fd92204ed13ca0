"""Image volumes of a container: prepared by the image daemon, mounted here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.v1 import api_pb2
from triptych.rootfs.v1 import rootfs_pb2
from triptych_linux.process import shielded

from triptych_runtime.bundles import mount_image_volume
from triptych_runtime.lifecycle import Undo, fault
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.spec import is_image


@dataclass(slots=True)
class ImageVolumes:
    """Mounted image volumes, by the index of their mount in the request.

    :ivar image_ids: of what is mounted.
    :ivar keys: at the image daemon.
    """

    paths: dict[int, Path] = field(default_factory=dict)
    image_ids: dict[int, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


async def mount_image_volumes(
    node: Node, sandbox: SandboxRecord, record: ContainerRecord, userns: Path | None, undo: Undo
) -> ImageVolumes:
    """Prepare and mount the image volumes of a container, to be undone by `undo`."""
    made = ImageVolumes()
    for index, mount in enumerate(record.config.mounts):
        if not is_image(mount):
            continue
        if not made.keys:
            undo.push("image volumes", lambda: node.images.remove(record.id, prefix=True))
        key = f"{record.id}/{index}"
        made.keys.append(key)
        image = mount.image.image_ref or mount.image.image
        prepared = await node.images.prepare_volume(
            key, image, mount.image_sub_path, mount_label=sandbox.selinux_mount_label, **id_mappings(sandbox)
        )
        target = node.paths.image_volume(record.id, index)
        mounting = asyncio.to_thread(mount_image_volume, prepared, target, userns)
        made.paths[index] = await shielded(mounting, node.settings.deadlines.create)
        made.image_ids[index] = prepared.image_id
        fault("create_container.image_volume")
    return made


def with_digests(
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


def id_mappings(sandbox: SandboxRecord) -> dict[str, list[rootfs_pb2.IdMapping]]:
    """What the image daemon is told of a pod's user namespace; nothing where it has none."""
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
