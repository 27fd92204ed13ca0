"""triptych.image.v1.ImageAdminService/Push"""

from __future__ import annotations

from triptych.image.v1 import image_pb2
from triptych_oci import Reference

from triptych_image.app import App
from triptych_image.errors import InvalidRequest
from triptych_image.registry import Credentials


async def push(app: App, request: image_pb2.PushRequest) -> image_pb2.PushResponse:
    """Upload an image to a registry."""
    from triptych_image.offline.push import Pusher  # idle daemons do without it

    image = app.need(request.image)
    destination = Reference.parse(request.destination or request.image)
    if not request.destination and destination.canonical not in app.store.snapshot.names:
        # "sha256:abc..." is a name too, of a repository on Docker Hub.
        raise InvalidRequest(f"destination: {request.image!r} is an image ID; name where to push it")
    if destination.digest is not None:
        raise InvalidRequest("destination: a registry computes digests itself; name a tag")
    credentials = Credentials.from_cri(request.auth) if request.HasField("auth") else None
    with app.store.hold() as hold:
        await hold.layers(set(image.layers))
        pusher = Pusher(app.store, app.registry, app.workers, app.settings)
        digest = await pusher.push(image, destination, credentials)
    return image_pb2.PushResponse(digest=digest)
