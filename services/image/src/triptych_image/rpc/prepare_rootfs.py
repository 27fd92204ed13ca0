"""triptych.rootfs.v1.RootfsService/PrepareRootfs"""

from __future__ import annotations

from collections.abc import Iterable

from triptych.rootfs.v1 import rootfs_pb2

from triptych_image.app import App
from triptych_image.rootfs.manager import Mapping, Mounting


async def prepare_rootfs(
    app: App, request: rootfs_pb2.PrepareRootfsRequest
) -> rootfs_pb2.PrepareRootfsResponse:
    """Make a container's writable layer and say how to mount its root filesystem."""
    image = app.need(request.image)
    references = app.store.snapshot.digests.get(image.id, ())
    mounting, record, config = await app.rootfs.prepare(
        request.key,
        image,
        references[0] if references else image.id,
        mappings(request.uid_mappings),
        mappings(request.gid_mappings),
        request.size_limit_bytes,
        request.mount_label,
    )
    return rootfs_pb2.PrepareRootfsResponse(
        overlay=overlay(mounting),
        image_id=record.image_id,
        image_config=config,
        image_ref=record.image_ref,
    )


def mappings(items: Iterable[rootfs_pb2.IdMapping]) -> list[Mapping]:
    """ID mappings of a request."""
    return [Mapping(item.host_id, item.container_id, item.length) for item in items]


def overlay(mounting: Mounting) -> rootfs_pb2.Overlay:
    """Mount instructions for the wire."""
    return rootfs_pb2.Overlay(
        lower=mounting.lower,
        upper=mounting.upper,
        work=mounting.work,
        options=mounting.options,
        idmap_lower=mounting.idmap_lower,
    )
