"""Loading images from an archive, through the same pipeline as a pull."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from triptych_oci import PlatformMatcher, Reference

from triptych_image.errors import ImageMalformed, InvalidRequest
from triptych_image.offline import archives, docker, layouts
from triptych_image.offline.archives import ArchiveSource
from triptych_image.offline.documents import Documents, Found, name_for
from triptych_image.offline.members import Archive
from triptych_image.pull.progress import Stage
from triptych_image.pull.puller import Puller
from triptych_image.store import Store
from triptych_image.unpack.pool import UnpackWorkers


@dataclass(frozen=True, slots=True)
class Loaded:
    """One image that was loaded.

    :param references: its names from the archive, or the one of the request; maybe none.
    """

    image_id: str
    references: tuple[str, ...]


async def load(puller: Puller, store: Store, workers: UnpackWorkers, path: Path, name: str) -> list[Loaded]:
    """Load every image of an archive.

    :param name: reference for an image that carries none; "" for none.
    :raises InvalidRequest: when the name cannot be that of the image, or of several.
    :raises ImageMalformed: when the archive holds no image, or cannot be read.
    :raises LayerMalformed, LayerTooLarge, DiskFull: as `archives.opened`.
    """
    if name:
        Reference.parse(name)
    matcher = puller.matcher
    async with archives.opened(path, store, workers, puller.settings) as archive:
        found = await asyncio.to_thread(_images, archive, matcher, str(path))
        if not found:
            raise ImageMalformed(f"{path}: no image for platform {matcher.platform} in the archive")
        named = _named(found, name)
        return [await _load(puller, image, names, path) for image, names in named]


async def _load(puller: Puller, image: Found, names: list[str], path: Path) -> Loaded:
    record = puller.board.begin(names[0] if names else str(path))
    record.host = str(path)
    try:
        source = ArchiveSource(image.blobs)
        image_id = await puller.store_image(image.content, names, image.target, source, record)
    except BaseException as error:
        puller.board.end(record, Stage.FAILED, error if isinstance(error, Exception) else None)
        raise
    record.image_id = image_id
    puller.board.end(record, Stage.DONE)
    return Loaded(image_id, tuple(names))


def _images(archive: Archive, matcher: PlatformMatcher, what: str) -> list[Found]:
    documents = Documents(archive)
    if archive.find(layouts.LIST) is not None:
        return list(layouts.layout_images(documents, matcher))
    if archive.find(docker.LIST) is not None:
        return list(docker.docker_images(documents))
    raise ImageMalformed(f"{what}: neither an OCI layout nor a docker archive")


def _named(found: list[Found], name: str) -> list[tuple[Found, list[str]]]:
    """Images with their names, and with the given one where there is none."""
    nameless = [image for image in found if not image.names]
    if not name or not nameless:
        return [(image, list(image.names)) for image in found]
    if len(nameless) > 1:
        raise InvalidRequest(f"reference: {len(nameless)} images of the archive have no name, {name} is one")
    given = name_for(name, nameless[0].target)
    if given is None:
        raise InvalidRequest(f"reference: {name}: the image has digest {nameless[0].target}")
    return [(image, list(image.names) or [given]) for image in found]
