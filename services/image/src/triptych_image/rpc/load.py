"""triptych.image.v1.ImageAdminService/Load"""

from __future__ import annotations

from triptych.image.v1 import image_pb2

from triptych_image.app import App
from triptych_image.rpc.paths import absolute


async def load(app: App, request: image_pb2.LoadRequest) -> image_pb2.LoadResponse:
    """Load the images of an archive on this node."""
    from triptych_image.offline.load import load as load_archive  # idle daemons do without it

    path = absolute(request.path)
    loaded = await load_archive(app.puller, app.store, app.workers, path, request.reference)
    return image_pb2.LoadResponse(
        references=[name for image in loaded for name in image.references],
        image_ids=[image.image_id for image in loaded],
    )
