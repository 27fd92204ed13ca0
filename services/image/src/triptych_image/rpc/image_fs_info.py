"""runtime.v1.ImageService/ImageFsInfo"""

from __future__ import annotations

import time

from runtime.v1 import api_pb2

from triptych_image.app import App


async def image_fs_info(app: App, request: api_pb2.ImageFsInfoRequest) -> api_pb2.ImageFsInfoResponse:
    """What images and writable layers take, from the store's own counts: nothing is walked for it.

    Both have the same mount point unless writable layers are on a file system of their own.
    """
    snapshot = app.store.snapshot
    now = time.time_ns()
    images = api_pb2.FilesystemUsage(
        timestamp=now,
        fs_id=api_pb2.FilesystemIdentifier(mountpoint=app.image_mountpoint),
        used_bytes=api_pb2.UInt64Value(value=snapshot.layer_bytes),
        inodes_used=api_pb2.UInt64Value(value=snapshot.layer_inodes),
    )
    size, inodes = app.meter.known()
    containers = api_pb2.FilesystemUsage(
        timestamp=now,
        fs_id=api_pb2.FilesystemIdentifier(mountpoint=app.rootfs_mountpoint),
        used_bytes=api_pb2.UInt64Value(value=size),
        inodes_used=api_pb2.UInt64Value(value=inodes),
    )
    app.meter.refresh(app.rootfs.writable())
    return api_pb2.ImageFsInfoResponse(image_filesystems=[images], container_filesystems=[containers])
