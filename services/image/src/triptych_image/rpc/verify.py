"""triptych.image.v1.ImageAdminService/Verify"""

from __future__ import annotations

from collections.abc import AsyncIterator

from triptych.image.v1 import image_pb2

from triptych_image.app import App


async def verify(app: App, request: image_pb2.VerifyRequest) -> AsyncIterator[image_pb2.VerifyResult]:
    """Hash and compare what is stored; one message for each blob and layer of each image."""
    from triptych_image.offline.verify import verify as verify_images  # idle daemons do without it

    images = app.store.snapshot.images
    wanted = [app.need(text) for text in request.images] or [images[key] for key in sorted(images)]
    with app.store.hold() as hold:
        await hold.layers({key for image in wanted for key in image.layers})
        async for found in verify_images(app.store, app.workers, wanted):
            yield image_pb2.VerifyResult(
                image_id=found.image_id, object=found.object, ok=found.ok, problem=found.problem
            )
