"""Images as CRI shows them."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_image.app import App
from triptych_image.store import ImageRecord

_UID_MAX = (1 << 63) - 1


def to_cri(app: App, image: ImageRecord) -> api_pb2.Image:
    """A CRI Image. Its size is what removing it would free if it shared nothing: the kubelet adds these up
    to decide how many images to remove, against the bytes that ImageFsInfo reports."""
    snapshot = app.store.snapshot
    shown = api_pb2.Image(
        id=image.id,
        repo_tags=snapshot.tags.get(image.id, ()),
        repo_digests=snapshot.digests.get(image.id, ()),
        size=snapshot.image_bytes(image),
        spec=api_pb2.ImageSpec(image=image.id, annotations=image.annotations),
        pinned=app.pinned(image.id),
    )
    user = image.user.partition(":")[0]
    # A number that is none for CRI is a name, as for containerd.
    if user.isascii() and user.isdigit() and int(user) <= _UID_MAX:
        shown.uid.value = int(user)
    else:
        shown.username = user
    return shown


def selected(app: App, filter: api_pb2.ImageFilter) -> list[api_pb2.Image]:
    """Images that a filter lets through, in the order of their IDs."""
    wanted = filter.image.image
    if wanted:
        found = app.find(wanted)
        return [to_cri(app, found)] if found is not None else []
    images = app.store.snapshot.images
    return [to_cri(app, images[key]) for key in sorted(images)]
