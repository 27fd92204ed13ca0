"""Proof that what is stored is whole.

A layer is proved by playing its tape: what the files hold now, put back between the headers of the archive
that they came from, must have the digest that the image's config names. Names, types, modes, owners and
links are compared with the same headers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from triptych_errors import TriptychError
from triptych_oci import Digest, Manifest, parse_manifest

from triptych_image.layers.marks import is_opaque
from triptych_image.store import ImageKind, ImageRecord, LayerRecord, Store
from triptych_image.unpack.pool import UnpackWorkers

REPAIR = "triptych:repair:"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    :param object: digest of a blob, or diffID of a layer.
    :param problem: what is wrong, or what could not be checked; "" for nothing.
    """

    image_id: str
    object: str
    ok: bool
    problem: str = ""


async def verify(
    store: Store, workers: UnpackWorkers, images: Iterable[ImageRecord]
) -> AsyncIterator[Finding]:
    """Check images, blob by blob and layer by layer; what images share is read once."""
    done: dict[str, tuple[bool, str]] = {}
    for image in images:
        for digest in image.blobs:
            if digest not in done:
                done[digest] = await asyncio.to_thread(_blob, store, digest)
            yield Finding(image.id, digest, *done[digest])
        for key in image.layers:
            record = store.snapshot.layers.get(key)
            if record is None:
                yield Finding(image.id, key, False, "the layer is not stored")
                continue
            if key not in done:
                done[key] = await _layer(store, workers, image, record)
            yield Finding(image.id, record.diff_id, *done[key])


def _blob(store: Store, digest: Digest) -> tuple[bool, str]:
    try:
        hasher = digest.hasher()
        with store.paths.blob(digest).open("rb") as file:
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
    except OSError as error:
        return False, error.strerror or str(error)
    same = hasher.hexdigest() == digest.hex
    return same, "" if same else f"it has digest {digest.algorithm}:{hasher.hexdigest()}"


async def _layer(
    store: Store, workers: UnpackWorkers, image: ImageRecord, record: LayerRecord
) -> tuple[bool, str]:
    if image.kind is ImageKind.ARTIFACT:
        return await asyncio.to_thread(_artifact, store, image)
    root = store.paths.layer(record.key)
    if record.diff_id.startswith(REPAIR):
        return (True, "") if root.is_dir() else (False, "the directory is missing")
    try:
        tape = os.open(store.paths.tape(record.key), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return False, f"tape: {error.strerror}"
    try:
        if not record.complete:
            return True, "the archive replaced files that it holds itself; contents cannot be proved"
        found = await workers.verify(root, tape)
    except (TriptychError, OSError) as error:
        return False, str(error)
    finally:
        os.close(tape)
    problems = list(found["problems"])
    if found["diff_id"] != record.diff_id:
        problems.append(f"its contents have digest {found['diff_id']}")
    if found["inodes"] + 1 != record.inodes:
        problems.append(f"it has {found['inodes']} inodes, not {record.inodes - 1}")
    marks = await store.layer_marks(record.key)
    problems += [f"{path!r} is not opaque" for path in marks.opaque if not is_opaque(root, path)]
    return not problems, "; ".join(problems)


def _artifact(store: Store, image: ImageRecord) -> tuple[bool, str]:
    from triptych_image.pull.artifacts import file_name

    try:
        manifest = parse_manifest(store.read_blob(image.manifest))
        assert isinstance(manifest, Manifest)
        for item in manifest.layers or ():
            hasher = item.digest.hasher()
            with (store.paths.layer(image.layers[0]) / file_name(item)).open("rb") as file:
                while chunk := file.read(1 << 20):
                    hasher.update(chunk)
            if hasher.hexdigest() != item.digest.hex:
                return False, f"{file_name(item)!r} has digest {item.digest.algorithm}:{hasher.hexdigest()}"
    except (TriptychError, OSError) as error:
        return False, str(error)
    return True, ""
