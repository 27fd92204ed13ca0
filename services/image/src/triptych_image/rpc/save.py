"""triptych.image.v1.ImageAdminService/Save"""

from __future__ import annotations

from triptych.image.v1 import image_pb2
from triptych_oci import InvalidDigest, InvalidReference, Reference

from triptych_image.app import App
from triptych_image.errors import InvalidRequest
from triptych_image.rpc.paths import absolute
from triptych_image.store import ImageRecord


async def save(app: App, request: image_pb2.SaveRequest) -> image_pb2.SaveResponse:
    """Save images into an archive on this node."""
    from triptych_image.offline.save import Saver  # idle daemons do without it

    path = absolute(request.path)
    if not request.images:
        raise InvalidRequest("images: none is named")
    images = [(image := app.need(text), _name(app, image, text)) for text in request.images]
    with app.store.hold() as hold:
        await hold.layers({key for image, _ in images for key in image.layers})
        return image_pb2.SaveResponse(bytes=await Saver(app.store, app.workers).save(images, path))


def _name(app: App, image: ImageRecord, text: str) -> str:
    """The reference to write: the one asked by, if it is one, else the first tag."""
    try:
        canonical = Reference.parse(text).canonical
    except (InvalidReference, InvalidDigest):
        canonical = ""
    if canonical in app.store.snapshot.names and "@" not in canonical:
        return canonical
    return next(iter(app.store.snapshot.tags.get(image.id, ())), "")
