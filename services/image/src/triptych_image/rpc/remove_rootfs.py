"""triptych.rootfs.v1.RootfsService/RemoveRootfs"""

from __future__ import annotations

from triptych.rootfs.v1 import rootfs_pb2

from triptych_image.app import App


async def remove_rootfs(
    app: App, request: rootfs_pb2.RemoveRootfsRequest
) -> rootfs_pb2.RemoveRootfsResponse:
    """Drop a root filesystem; its files are freed behind the answer."""
    await app.rootfs.remove(request.key, prefix=request.prefix)
    app.store.free_soon()
    return rootfs_pb2.RemoveRootfsResponse()
