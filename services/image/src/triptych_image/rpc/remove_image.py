"""runtime.v1.ImageService/RemoveImage"""

from __future__ import annotations

import logging

from runtime.v1 import api_pb2

from triptych_image.app import App

log = logging.getLogger(__name__)


async def remove_image(app: App, request: api_pb2.RemoveImageRequest) -> api_pb2.RemoveImageResponse:
    """Remove an image with all its names; one that is not there is no error.

    Layers that containers use stay until those are gone. The disk is freed behind the answer.
    """
    image = app.find(request.image.image)
    if image is not None:
        await app.store.remove_images([image.id])
        app.store.free_soon()
        log.info("removed image", extra={"image": request.image.image, "id": image.id})
    return api_pb2.RemoveImageResponse()
