"""Binds the RPCs to the three gRPC services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych.image.v1 import image_pb2, image_pb2_grpc
from triptych.rootfs.v1 import rootfs_pb2, rootfs_pb2_grpc

from triptych_image.app import App
from triptych_image.rpc.image_fs_info import image_fs_info
from triptych_image.rpc.image_status import image_status
from triptych_image.rpc.list_images import list_images, stream_images
from triptych_image.rpc.list_rootfs import list_rootfs
from triptych_image.rpc.load import load
from triptych_image.rpc.prepare_image_volume import prepare_image_volume
from triptych_image.rpc.prepare_rootfs import prepare_rootfs
from triptych_image.rpc.prune import prune
from triptych_image.rpc.pull_image import pull_image
from triptych_image.rpc.pull_progress import pull_with_progress, watch_pulls
from triptych_image.rpc.push import push
from triptych_image.rpc.remove_image import remove_image
from triptych_image.rpc.remove_rootfs import remove_rootfs
from triptych_image.rpc.rootfs_usage import rootfs_usage
from triptych_image.rpc.save import save
from triptych_image.rpc.tag import tag
from triptych_image.rpc.verify import verify

Context = grpc.aio.ServicerContext[Any, Any]


class ImageService(api_pb2_grpc.ImageServiceServicer):
    """runtime.v1.ImageService"""

    def __init__(self, app: App) -> None:
        self._app = app

    async def ListImages(
        self, request: api_pb2.ListImagesRequest, context: Context
    ) -> api_pb2.ListImagesResponse:
        return await list_images(self._app, request)

    async def StreamImages(
        self, request: api_pb2.StreamImagesRequest, context: Context
    ) -> AsyncIterator[api_pb2.StreamImagesResponse]:
        async for response in stream_images(self._app, request):
            yield response

    async def ImageStatus(
        self, request: api_pb2.ImageStatusRequest, context: Context
    ) -> api_pb2.ImageStatusResponse:
        return await image_status(self._app, request)

    async def PullImage(
        self, request: api_pb2.PullImageRequest, context: Context
    ) -> api_pb2.PullImageResponse:
        return await pull_image(self._app, request)

    async def RemoveImage(
        self, request: api_pb2.RemoveImageRequest, context: Context
    ) -> api_pb2.RemoveImageResponse:
        return await remove_image(self._app, request)

    async def ImageFsInfo(
        self, request: api_pb2.ImageFsInfoRequest, context: Context
    ) -> api_pb2.ImageFsInfoResponse:
        return await image_fs_info(self._app, request)


class RootfsService(rootfs_pb2_grpc.RootfsServiceServicer):
    """triptych.rootfs.v1.RootfsService"""

    def __init__(self, app: App) -> None:
        self._app = app

    async def PrepareRootfs(
        self, request: rootfs_pb2.PrepareRootfsRequest, context: Context
    ) -> rootfs_pb2.PrepareRootfsResponse:
        return await prepare_rootfs(self._app, request)

    async def PrepareImageVolume(
        self, request: rootfs_pb2.PrepareImageVolumeRequest, context: Context
    ) -> rootfs_pb2.PrepareImageVolumeResponse:
        return await prepare_image_volume(self._app, request)

    async def RemoveRootfs(
        self, request: rootfs_pb2.RemoveRootfsRequest, context: Context
    ) -> rootfs_pb2.RemoveRootfsResponse:
        return await remove_rootfs(self._app, request)

    async def ListRootfs(
        self, request: rootfs_pb2.ListRootfsRequest, context: Context
    ) -> rootfs_pb2.ListRootfsResponse:
        return await list_rootfs(self._app, request)

    async def RootfsUsage(
        self, request: rootfs_pb2.RootfsUsageRequest, context: Context
    ) -> rootfs_pb2.RootfsUsageResponse:
        return await rootfs_usage(self._app, request)


class ImageAdminService(image_pb2_grpc.ImageAdminServiceServicer):
    """triptych.image.v1.ImageAdminService"""

    def __init__(self, app: App) -> None:
        self._app = app

    async def PullImage(
        self, request: api_pb2.PullImageRequest, context: Context
    ) -> AsyncIterator[image_pb2.PullProgress]:
        async for progress in pull_with_progress(self._app, request):
            yield progress

    async def WatchPulls(
        self, request: image_pb2.WatchPullsRequest, context: Context
    ) -> AsyncIterator[image_pb2.PullProgress]:
        async for progress in watch_pulls(self._app):
            yield progress

    async def Load(self, request: image_pb2.LoadRequest, context: Context) -> image_pb2.LoadResponse:
        return await load(self._app, request)

    async def Save(self, request: image_pb2.SaveRequest, context: Context) -> image_pb2.SaveResponse:
        return await save(self._app, request)

    async def Push(self, request: image_pb2.PushRequest, context: Context) -> image_pb2.PushResponse:
        return await push(self._app, request)

    async def Tag(self, request: image_pb2.TagRequest, context: Context) -> image_pb2.TagResponse:
        return await tag(self._app, request)

    async def Prune(self, request: image_pb2.PruneRequest, context: Context) -> image_pb2.PruneResponse:
        return await prune(self._app, request)

    async def Verify(
        self, request: image_pb2.VerifyRequest, context: Context
    ) -> AsyncIterator[image_pb2.VerifyResult]:
        async for found in verify(self._app, request):
            yield found
