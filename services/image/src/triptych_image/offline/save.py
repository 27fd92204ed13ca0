"""Saving images as an OCI layout, with docker's manifest.json beside it.

Layers are played back from what is unpacked, as plain tars: their digests are their diff IDs, so the image's
ID does not change. A layer that is kept as it came goes into the archive as it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triptych_oci import (
    ANNOTATION_IMAGE_NAME,
    ANNOTATION_REF_NAME,
    Descriptor,
    Digest,
    Index,
    Manifest,
    MediaType,
    encode,
    parse_image_config,
    parse_manifest,
)

from triptych_image.errors import InvalidRequest, LayerDamaged, NotReproducible
from triptych_image.store import ImageKind, ImageRecord, Store, disk_error, layer_key
from triptych_image.unpack.pool import UnpackWorkers

_BLOCK = 512
_END = bytes(2 * _BLOCK)


class Saver:
    """Writes one archive."""

    def __init__(self, store: Store, workers: UnpackWorkers) -> None:
        self._store = store
        self._workers = workers
        self._written: dict[Digest, int] = {}
        self._fd = -1

    async def save(self, images: Sequence[tuple[ImageRecord, str]], path: Path) -> int:
        """Save images, each with the reference it was asked for by ("" for none); returns the bytes.

        The file appears under its name when it is whole.

        :raises InvalidRequest: when the path cannot be written.
        :raises NotReproducible: naming the layer that cannot be played back.
        """
        scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            self._fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidRequest(f"path: {scratch.parent}: {error.strerror}") from None
        try:
            size = await self._write(images)
            await asyncio.to_thread(os.rename, scratch, path)
        except OSError as error:
            raise disk_error(error, f"write {path}") from error
        finally:
            os.close(self._fd)
            scratch.unlink(missing_ok=True)
        return size

    async def _write(self, images: Sequence[tuple[ImageRecord, str]]) -> int:
        self._put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        entries: list[Descriptor] = []
        docker: list[dict[str, Any]] = []
        for image, reference in images:
            manifest = await self._image(image)
            data = (
                encode(manifest) if image.kind is ImageKind.IMAGE else self._store.read_blob(image.manifest)
            )
            digest = Digest.of(data)
            self._blob(digest, data)
            names = {ANNOTATION_IMAGE_NAME: reference, ANNOTATION_REF_NAME: reference} if reference else None
            kind = manifest.media_type or MediaType.OCI_MANIFEST.value
            entries.append(Descriptor(kind, digest, len(data), annotations=names))
            if image.kind is ImageKind.IMAGE:
                docker.append(_docker_entry(manifest, reference))
        index = Index(2, MediaType.OCI_INDEX.value, tuple(entries))
        self._put("index.json", encode(index))
        if docker:
            self._put("manifest.json", json.dumps(docker).encode())
        os.write(self._fd, _END)
        await asyncio.to_thread(os.fsync, self._fd)
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    async def _image(self, image: ImageRecord) -> Manifest:
        """Write config and layers; returns the manifest that describes them as written."""
        original = parse_manifest(self._store.read_blob(image.manifest))
        assert isinstance(original, Manifest)
        if image.kind is not ImageKind.IMAGE:
            await self._artifact(image, original)
            return original
        raw = self._store.read_blob(image.config)
        self._blob(image.config, raw)
        diff_ids = parse_image_config(raw).diff_ids
        layers: list[Descriptor] = []
        for layer, diff_id in zip(original.layers or (), diff_ids, strict=True):
            kept = self._store.paths.blob(layer.digest)
            if kept.exists():
                await self._file(layer.digest, kept)
                layers.append(layer)
            else:
                layers.append(Descriptor(MediaType.OCI_LAYER.value, diff_id, await self._layer(diff_id)))
        config = Descriptor(MediaType.OCI_CONFIG.value, image.config, len(raw))
        return Manifest(
            2, config, MediaType.OCI_MANIFEST.value, tuple(layers), annotations=original.annotations
        )

    async def _artifact(self, image: ImageRecord, manifest: Manifest) -> None:
        from triptych_image.pull.artifacts import file_name

        root = self._store.paths.layer(image.layers[0])
        for item in manifest.layers or ():
            await self._file(item.digest, root / file_name(item))
        self._blob(manifest.config.digest, self._store.read_blob(manifest.config.digest))

    async def _layer(self, diff_id: Digest) -> int:
        """Play a layer into the archive; returns its size, which is known only afterwards."""
        if diff_id in self._written:
            return self._written[diff_id]
        key = layer_key(diff_id)
        record = self._store.snapshot.layers[key]
        if not record.complete:
            raise NotReproducible(
                f"layer {diff_id} replaced files that it holds itself, so it cannot be saved"
            )
        start = os.lseek(self._fd, 0, os.SEEK_CUR)
        os.write(self._fd, bytes(_BLOCK))
        tape = os.open(self._store.paths.tape(key), os.O_RDONLY | os.O_CLOEXEC)
        try:
            async with self._workers.export(
                self._store.paths.layer(key), tape, self._fd, gzip=False
            ) as report:
                found = await report.result(f"save layer {diff_id}")
        finally:
            os.close(tape)
        if found["diff_id"] != diff_id:
            raise LayerDamaged(f"layer {diff_id} is not what it was: it reads as {found['diff_id']}")
        size = int(found["written"])
        os.pwrite(self._fd, _header(_name(diff_id), size), start)
        self._pad(size)
        self._written[diff_id] = size
        return size

    async def _file(self, digest: Digest, path: Path) -> None:
        if digest in self._written:
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            os.write(self._fd, _header(_name(digest), size))
            left = size
            while left:
                left -= await asyncio.to_thread(os.sendfile, self._fd, file.fileno(), size - left, left)
        self._pad(size)
        self._written[digest] = size

    def _blob(self, digest: Digest, data: bytes) -> None:
        if digest not in self._written:
            self._put(_name(digest), data)
            self._written[digest] = len(data)

    def _put(self, name: str, data: bytes) -> None:
        os.write(self._fd, _header(name, len(data)) + data)
        self._pad(len(data))

    def _pad(self, size: int) -> None:
        os.write(self._fd, bytes(-size % _BLOCK))


def _name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _docker_entry(manifest: Manifest, reference: str) -> dict[str, Any]:
    return {
        "Config": _name(manifest.config.digest),
        "RepoTags": [reference] if reference and "@" not in reference else None,
        "Layers": [_name(layer.digest) for layer in manifest.layers or ()],
    }
