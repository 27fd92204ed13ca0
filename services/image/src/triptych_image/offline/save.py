"""Saving images as an OCI layout, with docker's manifest.json beside it.

Layers are played back from what is unpacked, as plain tars: their digests are their diff IDs, so the image's
ID does not change. A layer that is kept as it came goes into the archive as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from triptych_oci import (
    ANNOTATION_IMAGE_NAME,
    ANNOTATION_REF_NAME,
    Descriptor,
    Digest,
    Index,
    Manifest,
    MediaType,
    encode,
    oci_layer,
    parse_image_config,
    parse_manifest,
)

from triptych_image.offline.documents import blob_name
from triptych_image.offline.playback import play
from triptych_image.offline.threads import in_thread
from triptych_image.offline.writer import ArchiveWriter, writing
from triptych_image.store import ImageKind, ImageRecord, Store
from triptych_image.unpack.pool import UnpackWorkers


class Saver:
    """Writes archives."""

    def __init__(self, store: Store, workers: UnpackWorkers) -> None:
        self._store = store
        self._workers = workers

    async def save(self, images: Sequence[tuple[ImageRecord, str]], path: Path) -> int:
        """Save images, each with the reference it was asked for by ("" for none); returns the bytes.

        :raises InvalidRequest: when the path cannot be written.
        :raises NotReproducible: naming the layer that cannot be played back.
        """
        async with writing(path) as archive:
            return await _Saving(self._store, self._workers, archive).run(images)


class _Saving:
    """One archive.

    :ivar _written: size by digest of the blobs that it has.
    """

    def __init__(self, store: Store, workers: UnpackWorkers, archive: ArchiveWriter) -> None:
        self._store = store
        self._workers = workers
        self._archive = archive
        self._written: dict[Digest, int] = {}

    async def run(self, images: Sequence[tuple[ImageRecord, str]]) -> int:
        await self._archive.put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        entries: list[Descriptor] = []
        docker: list[dict[str, Any]] = []
        for image, reference in images:
            manifest, data = await self._image(image)
            digest = Digest.of(data)
            await self._blob(digest, data)
            names = {ANNOTATION_IMAGE_NAME: reference, ANNOTATION_REF_NAME: reference} if reference else None
            kind = manifest.media_type or MediaType.OCI_MANIFEST.value
            entries.append(Descriptor(kind, digest, len(data), annotations=names))
            if image.kind is ImageKind.IMAGE:
                docker.append(_docker_entry(manifest, reference))
        index = Index(2, MediaType.OCI_INDEX.value, tuple(entries))
        await self._archive.put("index.json", encode(index))
        if docker:
            await self._archive.put("manifest.json", json.dumps(docker).encode())
        return await self._archive.finish()

    async def _image(self, image: ImageRecord) -> tuple[Manifest, bytes]:
        """Write config and layers; returns the manifest that describes them as written, and its bytes."""
        data = await in_thread(self._store.read_blob, image.manifest)
        original = parse_manifest(data)
        assert isinstance(original, Manifest)
        if image.kind is not ImageKind.IMAGE:
            await self._artifact(image, original)
            return original, data
        raw = await in_thread(self._store.read_blob, image.config)
        await self._blob(image.config, raw)
        diff_ids = parse_image_config(raw).diff_ids
        layers: list[Descriptor] = []
        for layer, diff_id in zip(original.layers or (), diff_ids, strict=True):
            kept = self._store.paths.blob(layer.digest)
            if kept.exists():
                await self._file(layer.digest, kept)
                layers.append(msgspec.structs.replace(layer, media_type=oci_layer(layer.media_type)))
            else:
                layers.append(Descriptor(MediaType.OCI_LAYER.value, diff_id, await self._layer(diff_id)))
        config = Descriptor(MediaType.OCI_CONFIG.value, image.config, len(raw))
        manifest = Manifest(
            2, config, MediaType.OCI_MANIFEST.value, tuple(layers), annotations=original.annotations
        )
        return manifest, encode(manifest)

    async def _artifact(self, image: ImageRecord, manifest: Manifest) -> None:
        from triptych_image.pull.artifacts import file_name

        root = self._store.paths.layer(image.layers[0])
        for item in manifest.layers or ():
            await self._file(item.digest, root / file_name(item))
        config = await in_thread(self._store.read_blob, manifest.config.digest)
        await self._blob(manifest.config.digest, config)

    async def _layer(self, diff_id: Digest) -> int:
        """Play a layer into the archive; returns its size, which is known only afterwards."""
        if diff_id in self._written:
            return self._written[diff_id]
        start = await self._archive.begin()
        size = await play(self._store, self._workers, diff_id, self._archive.fd, gzip=False)
        await self._archive.end(start, blob_name(diff_id), size)
        self._written[diff_id] = size
        return size

    async def _file(self, digest: Digest, path: Path) -> None:
        if digest not in self._written:
            self._written[digest] = await self._archive.put_file(blob_name(digest), path)

    async def _blob(self, digest: Digest, data: bytes) -> None:
        if digest not in self._written:
            await self._archive.put(blob_name(digest), data)
            self._written[digest] = len(data)


def _docker_entry(manifest: Manifest, reference: str) -> dict[str, Any]:
    return {
        "Config": blob_name(manifest.config.digest),
        "RepoTags": [reference] if reference and "@" not in reference else None,
        "Layers": [blob_name(layer.digest) for layer in manifest.layers or ()],
    }
