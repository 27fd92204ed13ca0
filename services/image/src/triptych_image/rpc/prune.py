"""triptych.image.v1.ImageAdminService/Prune"""

from __future__ import annotations

from triptych.image.v1 import image_pb2

from triptych_image.app import App
from triptych_image.store import ImageRecord


async def prune(app: App, request: image_pb2.PruneRequest) -> image_pb2.PruneResponse:
    """Remove leftovers of pulls that did not end, and with `images` those neither in use nor pinned.

    `freed_bytes` counts what is on the disk now and will not be, shared layers once.
    """
    snapshot = app.store.snapshot
    unused: list[ImageRecord] = []
    if request.images:
        used = {rootfs.image_id for rootfs in snapshot.rootfs.values()}
        unused = [i for key, i in sorted(snapshot.images.items()) if key not in used and not app.pinned(key)]
    removed = {image.id for image in unused}
    if request.dry_run:
        return image_pb2.PruneResponse(removed_images=sorted(removed), freed_bytes=_would_free(app, removed))
    before = snapshot.layer_bytes
    if removed:
        await app.store.remove_images(removed)
    partials = await app.store.collect_partials(all_unused=True)
    await app.store.collect(all_unused=True)
    await app.store.empty_trash()
    freed = max(before - app.store.snapshot.layer_bytes, 0) + partials
    return image_pb2.PruneResponse(removed_images=sorted(removed), freed_bytes=freed)


def _would_free(app: App, removed: set[str]) -> int:
    snapshot = app.store.snapshot
    staying = [image for image in snapshot.images.values() if image.id not in removed]
    kept = {key for image in staying for key in image.layers}
    kept |= {key for rootfs in snapshot.rootfs.values() for key in rootfs.layers}
    layers = sum(layer.size for key, layer in snapshot.layers.items() if key not in kept)
    blobs = {digest for image in staying for digest in image.blobs}
    return layers + sum(size for digest, size in snapshot.blob_sizes.items() if digest not in blobs)
