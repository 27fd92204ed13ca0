"""The archive of an unpacked layer, played back from its tape; see docs/image-store.md, "The tape"."""

from __future__ import annotations

import os

from triptych_oci import Digest

from triptych_image.errors import ImageNotFound, LayerDamaged, NotReproducible
from triptych_image.store import Store, layer_key
from triptych_image.unpack.pool import UnpackWorkers


async def play(store: Store, workers: UnpackWorkers, diff_id: Digest, out: int, *, gzip: bool) -> int:
    """Write a layer's archive into the descriptor `out`; gives the bytes written, packed or not.

    :raises ImageNotFound: the layer was removed meanwhile.
    :raises NotReproducible: it replaced files that it holds itself.
    :raises LayerDamaged: its files have changed.
    """
    key = layer_key(diff_id)
    record = store.snapshot.layers.get(key)
    if record is None:
        raise ImageNotFound(f"layer {diff_id} was removed meanwhile")
    if not record.complete:
        raise NotReproducible(
            f"layer {diff_id} replaced files that it holds itself, so its archive cannot be made again"
        )
    tape = os.open(store.paths.tape(key), os.O_RDONLY | os.O_CLOEXEC)
    try:
        async with workers.export(store.paths.layer(key), tape, out, gzip=gzip) as report:
            found = await report.result(f"play layer {diff_id} back")
    finally:
        os.close(tape)
    if found["diff_id"] != diff_id:
        raise LayerDamaged(f"layer {diff_id} is not what it was: it reads as {found['diff_id']}")
    return int(found["written"])
