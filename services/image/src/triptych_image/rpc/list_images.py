"""runtime.v1.ImageService/ListImages and /StreamImages"""

from __future__ import annotations

from collections.abc import AsyncIterator

from runtime.v1 import api_pb2

from triptych_image.app import App
from triptych_image.rpc.images import selected

_CHUNK = 200


async def list_images(app: App, request: api_pb2.ListImagesRequest) -> api_pb2.ListImagesResponse:
    """All images, or the one that the filter names."""
    return api_pb2.ListImagesResponse(images=selected(app, request.filter))


async def stream_images(
    app: App, request: api_pb2.StreamImagesRequest
) -> AsyncIterator[api_pb2.StreamImagesResponse]:
    """The same in messages of 200 images."""
    images = selected(app, request.filter)
    for start in range(0, len(images), _CHUNK):
        yield api_pb2.StreamImagesResponse(images=images[start : start + _CHUNK])
