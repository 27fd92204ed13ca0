"""The image daemon: root filesystems and image volumes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import grpc
from triptych.rootfs.v1 import rootfs_pb2, rootfs_pb2_grpc
from triptych_errors import DeadlineExceeded

from triptych_runtime.clients.calls import call
from triptych_runtime.errors import ServiceDown

T = TypeVar("T")
_DAEMON = "triptych-image"
_DEADLINE = 60.0
_REMOVE_DEADLINE = 5.0


class ImageClient:
    """RootfsService on the image daemon's socket.

    :ivar missed: set when a call found nobody, got no answer in time, or was called off. What it asked for
        may be done or not, also after what came later, and what was to be removed may still be there.
    """

    def __init__(self, channel: grpc.aio.Channel, socket: str) -> None:
        self.channel = channel
        self.socket = socket
        self.missed = asyncio.Event()
        self._stub = rootfs_pb2_grpc.RootfsServiceStub(channel)

    async def prepare_rootfs(
        self,
        key: str,
        image: str,
        *,
        uid_mappings: Sequence[rootfs_pb2.IdMapping] = (),
        gid_mappings: Sequence[rootfs_pb2.IdMapping] = (),
        size_limit: int = 0,
        mount_label: str = "",
    ) -> rootfs_pb2.PrepareRootfsResponse:
        """A writable layer for a container, and how to mount it.

        :raises NotFound: an image that is not here.
        """
        request = rootfs_pb2.PrepareRootfsRequest(
            key=key,
            image=image,
            uid_mappings=uid_mappings,
            gid_mappings=gid_mappings,
            size_limit_bytes=size_limit,
            mount_label=mount_label,
        )
        work = self._stub.PrepareRootfs(request, timeout=_DEADLINE)
        return await self._call(work, "prepare root filesystem")

    async def prepare_volume(
        self,
        key: str,
        image: str,
        sub_path: str,
        *,
        uid_mappings: Sequence[rootfs_pb2.IdMapping] = (),
        gid_mappings: Sequence[rootfs_pb2.IdMapping] = (),
        mount_label: str = "",
    ) -> rootfs_pb2.PrepareImageVolumeResponse:
        """A read-only view of an image for a volume."""
        request = rootfs_pb2.PrepareImageVolumeRequest(
            key=key,
            image=image,
            sub_path=sub_path,
            uid_mappings=uid_mappings,
            gid_mappings=gid_mappings,
            mount_label=mount_label,
        )
        work = self._stub.PrepareImageVolume(request, timeout=_DEADLINE)
        return await self._call(work, "prepare image volume")

    async def remove(self, key: str, *, prefix: bool = False) -> None:
        """Drop a root filesystem or, with `prefix`, what lies below the key; idempotent.

        Waits a while for a daemon that is down: it may be restarting, and nobody need do this twice.
        """
        request = rootfs_pb2.RemoveRootfsRequest(key=key, prefix=prefix)
        work = self._stub.RemoveRootfs(request, timeout=_REMOVE_DEADLINE, wait_for_ready=True)
        await self._call(work, "remove root filesystem")

    async def keys(self) -> list[str]:
        """Every key that the image daemon keeps; waits a while for one that is down."""
        request = rootfs_pb2.ListRootfsRequest()
        work = self._stub.ListRootfs(request, timeout=_DEADLINE, wait_for_ready=True)
        answer = await self._call(work, "list root filesystems")
        return [item.key for item in answer.items]

    async def usage(self, keys: Sequence[str]) -> dict[str, rootfs_pb2.Usage]:
        """Disk usage of writable layers by key."""
        work = self._stub.RootfsUsage(rootfs_pb2.RootfsUsageRequest(keys=keys), timeout=_DEADLINE)
        answer = await self._call(work, "measure root filesystems")
        return {item.key: item for item in answer.items}

    async def _call(self, work: Awaitable[T], step: str) -> T:
        try:
            return await call(work, daemon=_DAEMON, socket=self.socket, step=step)
        except (ServiceDown, DeadlineExceeded, asyncio.CancelledError):
            self.missed.set()
            raise
