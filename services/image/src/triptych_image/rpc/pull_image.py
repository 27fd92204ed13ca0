"""runtime.v1.ImageService/PullImage"""

from __future__ import annotations

from runtime.v1 import api_pb2
from triptych_oci import Reference

from triptych_image.app import App
from triptych_image.registry import Credentials


async def pull_image(app: App, request: api_pb2.PullImageRequest) -> api_pb2.PullImageResponse:
    """Pull an image; `image_ref` is its ID, as in Image.id."""
    reference = Reference.parse(request.image.image)
    credentials = Credentials.from_cri(request.auth) if request.HasField("auth") else None
    return api_pb2.PullImageResponse(image_ref=await app.puller.pull(reference, credentials))
