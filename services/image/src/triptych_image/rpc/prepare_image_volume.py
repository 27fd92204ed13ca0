"""triptych.rootfs.v1.RootfsService/PrepareImageVolume"""

from __future__ import annotations

from triptych.rootfs.v1 import rootfs_pb2

from triptych_image.app import App
from triptych_image.rpc.prepare_rootfs import overlay


async def prepare_image_volume(
    app: App, request: rootfs_pb2.PrepareImageVolumeRequest
) -> rootfs_pb2.PrepareImageVolumeResponse:
    """Make a read-only view of an image or artifact."""
    image = app.need(request.image)
    mounting, record = await app.rootfs.prepare_volume(
        request.key,
        image,
        request.sub_path,
        idmapped=bool(request.uid_mappings or request.gid_mappings),
        label=request.mount_label,
    )
    return rootfs_pb2.PrepareImageVolumeResponse(
        overlay=overlay(mounting), sub_path=record.sub_path, image_id=record.image_id
    )
