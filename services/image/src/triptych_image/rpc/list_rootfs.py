"""triptych.rootfs.v1.RootfsService/ListRootfs"""

from __future__ import annotations

from triptych.rootfs.v1 import rootfs_pb2

from triptych_image.app import App


async def list_rootfs(app: App, request: rootfs_pb2.ListRootfsRequest) -> rootfs_pb2.ListRootfsResponse:
    """Every key there is."""
    known = app.store.snapshot.rootfs
    return rootfs_pb2.ListRootfsResponse(
        items=[
            rootfs_pb2.Rootfs(key=key, image_id=known[key].image_id, created_at=known[key].created_at)
            for key in sorted(known)
        ]
    )
