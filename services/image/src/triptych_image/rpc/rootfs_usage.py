"""triptych.rootfs.v1.RootfsService/RootfsUsage"""

from __future__ import annotations

from triptych.rootfs.v1 import rootfs_pb2

from triptych_image.app import App


async def rootfs_usage(app: App, request: rootfs_pb2.RootfsUsageRequest) -> rootfs_pb2.RootfsUsageResponse:
    """What writable layers hold; unknown keys are left out."""
    usage = await app.rootfs.usage(request.keys)
    return rootfs_pb2.RootfsUsageResponse(
        items=[
            rootfs_pb2.Usage(
                key=key,
                used_bytes=found.bytes,
                inodes_used=found.inodes,
                timestamp=found.measured_at,
                mountpoint=app.rootfs_mountpoint,
            )
            for key, found in usage.items()
        ]
    )
