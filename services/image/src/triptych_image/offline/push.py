"""Pushing an image to a registry.

Layers that the registry lacks are taken, in this order: as they came, where they are kept; from the registry
that the image was pulled from, so that its digest stays the same; from what is unpacked, packed anew, which
gives the manifest another digest but leaves the image's ID as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from triptych_errors import TriptychError
from triptych_oci import (
    Descriptor,
    Digest,
    Manifest,
    MediaType,
    Reference,
    encode,
    oci_layer,
    parse_image_config,
    parse_manifest,
)

from triptych_image.offline.playback import play
from triptych_image.pull.reserve import within_reserve
from triptych_image.registry import Credentials, RegistryClient, Repository
from triptych_image.settings import Settings
from triptych_image.store import ImageKind, ImageRecord, Store
from triptych_image.unpack.pool import UnpackWorkers

log = logging.getLogger(__name__)

_CHUNK = 1 << 18


class Pusher:
    """Pushes images."""

    def __init__(
        self, store: Store, registry: RegistryClient, workers: UnpackWorkers, settings: Settings
    ) -> None:
        self._store = store
        self._registry = registry
        self._workers = workers
        self._settings = settings

    async def push(
        self, image: ImageRecord, destination: Reference, credentials: Credentials | None
    ) -> Digest:
        """Push an image; returns the digest of its manifest there.

        :raises TriptychError: of the registry, or NotReproducible for a layer that nobody has.
        :raises DiskFull: when there is no room to pack a layer anew.
        """
        raw = self._store.read_blob(image.manifest)
        manifest = parse_manifest(raw)
        assert isinstance(manifest, Manifest)
        async with contextlib.AsyncExitStack() as stack:
            target = await stack.enter_async_context(self._registry.repository(destination, credentials))
            origin = await self._origin(stack, image, destination, credentials)
            if image.kind is ImageKind.ARTIFACT:
                await self._push_artifact(target, image, manifest)
                return await target.push_manifest(raw, _kind(manifest), destination.tag)
            changed = await self._push_image(target, origin, image, manifest)
            if changed is not manifest:
                raw = encode(changed)
            return await target.push_manifest(raw, _kind(changed), destination.tag)

    async def _origin(
        self,
        stack: contextlib.AsyncExitStack,
        image: ImageRecord,
        destination: Reference,
        credentials: Credentials | None,
    ) -> Repository | None:
        """Where the image was pulled from; within one registry the request's credentials are for both."""
        if not image.source:
            return None
        source = Reference.parse(image.source)
        if source.name == destination.name:
            return None
        own = credentials if source.domain == destination.domain else None
        return await stack.enter_async_context(self._registry.repository(source, own))

    async def _push_image(
        self, target: Repository, origin: Repository | None, image: ImageRecord, manifest: Manifest
    ) -> Manifest:
        config = self._store.read_blob(image.config)
        diff_ids = parse_image_config(config).diff_ids
        layers: list[Descriptor] = []
        for layer, diff_id in zip(manifest.layers or (), diff_ids, strict=True):
            layers.append(await self._push_layer(target, origin, layer, diff_id))
        await target.push_blob(manifest.config, lambda: _bytes(config))
        if tuple(layers) == (manifest.layers or ()):
            return manifest
        media = MediaType.OCI_MANIFEST.value
        described = Descriptor(MediaType.OCI_CONFIG.value, image.config, len(config))
        renamed = [msgspec.structs.replace(item, media_type=oci_layer(item.media_type)) for item in layers]
        return Manifest(2, described, media, tuple(renamed), annotations=manifest.annotations)

    async def _push_layer(
        self, target: Repository, origin: Repository | None, layer: Descriptor, diff_id: Digest
    ) -> Descriptor:
        if await target.has_blob(layer):
            return layer
        kept = self._store.paths.blob(layer.digest)
        if kept.exists():
            await target.push_blob(layer, lambda: _file(kept))
            return layer
        if origin is not None:
            try:
                same = origin.reference.domain == target.reference.domain
                mount = origin.reference.path if same else None
                await target.push_blob(layer, lambda: origin.open_blob(layer), mount_from=mount)
            except TriptychError as error:
                log.info(
                    "layer cannot be had from where it was pulled, packing it anew",
                    extra={"layer": layer.digest, "error": str(error)},
                )
            else:
                return layer
        return await self._push_anew(target, diff_id)

    async def _push_anew(self, target: Repository, diff_id: Digest) -> Descriptor:
        """Pack a layer from what is unpacked."""
        scratch = self._store.paths.scratch()
        try:
            descriptor = await self._pack(diff_id, scratch)
            await target.push_blob(descriptor, lambda: _file(scratch))
        finally:
            await self._store.drop(scratch)
        return descriptor

    async def _pack(self, diff_id: Digest, scratch: Path) -> Descriptor:
        out = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            packing = play(self._store, self._workers, diff_id, out, gzip=True)
            await within_reserve(packing, self._store, self._settings)
        finally:
            os.close(out)
        digest, size = await asyncio.to_thread(_hash, scratch)
        return Descriptor(MediaType.OCI_LAYER_GZIP.value, digest, size)

    async def _push_artifact(self, target: Repository, image: ImageRecord, manifest: Manifest) -> None:
        from triptych_image.pull.artifacts import file_name

        root = self._store.paths.layer(image.layers[0])
        for item in manifest.layers or ():
            path = root / file_name(item)
            await target.push_blob(item, lambda path=path: _file(path))  # type: ignore[misc]
        config = self._store.read_blob(manifest.config.digest)
        await target.push_blob(manifest.config, lambda: _bytes(config))


def _kind(manifest: Manifest) -> str:
    return manifest.media_type or MediaType.OCI_MANIFEST.value


def _hash(path: Path) -> tuple[Digest, int]:
    with path.open("rb") as file:
        hasher = hashlib.file_digest(file, "sha256")
        return Digest.finish(hasher), file.tell()


async def _bytes(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _file(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
    finally:
        file.close()
