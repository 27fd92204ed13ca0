"""triptych.image.v1.ImageAdminService/Tag"""

from __future__ import annotations

from triptych.image.v1 import image_pb2
from triptych_oci import Reference

from triptych_image.app import App
from triptych_image.errors import InvalidRequest
from triptych_image.store import NameRecord


async def tag(app: App, request: image_pb2.TagRequest) -> image_pb2.TagResponse:
    """Give an image one more reference; one that another image has moves over."""
    image = app.need(request.image)
    reference = Reference.parse(request.reference)
    if reference.digest is not None:
        raise InvalidRequest("reference: a digest cannot be given, only a tag")
    await app.store.add_names([NameRecord(reference.canonical, image.id, image.manifest)])
    return image_pb2.TagResponse()
