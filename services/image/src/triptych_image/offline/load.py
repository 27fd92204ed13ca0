"""Loading images from an archive, through the same pipeline as a pull."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych_oci import (
    ANNOTATION_IMAGE_NAME,
    ANNOTATION_REF_NAME,
    Descriptor,
    Digest,
    Index,
    InvalidReference,
    Manifest,
    MediaType,
    PlatformMatcher,
    Reference,
    encode,
    parse_image_config,
    parse_manifest,
)

from triptych_image.errors import ImageMalformed
from triptych_image.offline import archives
from triptych_image.offline.archives import ArchiveSource
from triptych_image.offline.members import Archive, Member
from triptych_image.pull.progress import Stage
from triptych_image.pull.puller import EMPTY, Content, Puller
from triptych_image.store import Store

_DEPTH_MAX = 4


@dataclass(frozen=True, slots=True)
class Loaded:
    """One image that was loaded.

    :param references: its names from the archive, or the one of the request; maybe none.
    """

    image_id: str
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """An image of the archive, not yet loaded."""

    content: Content
    target: Digest
    names: tuple[str, ...]
    blobs: dict[Digest, Member]


async def load(
    puller: Puller, store: Store, matcher: PlatformMatcher, path: Path, name: str
) -> list[Loaded]:
    """Load every image of an archive.

    :param name: reference for an image that carries none; "" for none.
    :raises ImageMalformed: when the archive holds no image.
    :raises LayerTooLarge: when it unpacks to more than the settings allow.
    :raises DiskFull: when there is no room to unpack it.
    """
    given = Reference.parse(name).canonical if name else ""
    async with archives.opened(path, store, puller.settings) as archive:
        found = await asyncio.to_thread(_images, archive, matcher, str(path))
        if not found:
            raise ImageMalformed(f"{path}: no image for platform {matcher.platform} in the archive")
        loaded: list[Loaded] = []
        for image in found:
            names = list(image.names) or ([given] if given else [])
            record = puller.board.begin(names[0] if names else str(path))
            record.host = str(path)
            try:
                image_id = await puller.store_image(
                    image.content, names, image.target, ArchiveSource(image.blobs), record
                )
            except BaseException as error:
                puller.board.end(record, Stage.FAILED, error if isinstance(error, Exception) else None)
                raise
            record.image_id = image_id
            puller.board.end(record, Stage.DONE)
            loaded.append(Loaded(image_id, tuple(names)))
        return loaded


def _images(archive: Archive, matcher: PlatformMatcher, what: str) -> list[_Found]:
    if archive.find("index.json") is not None:
        return list(_oci_images(archive, matcher))
    if archive.find("manifest.json") is not None:
        return list(_docker_images(archive))
    raise ImageMalformed(f"{what}: neither an OCI layout nor a docker archive")


def _oci_images(archive: Archive, matcher: PlatformMatcher) -> Iterator[_Found]:
    index = parse_manifest(archives.read(archive.find("index.json"), "index.json"), what="index.json")
    if not isinstance(index, Index):
        raise ImageMalformed("index.json: it is no index")
    tags = _docker_tags(archive)
    by_content: dict[Digest, tuple[_Found, list[str]]] = {}
    for entry in index.manifests or ():
        blobs: dict[Digest, bytes] = {}
        found = _descend(archive, entry, matcher, blobs, _DEPTH_MAX)
        if found is None:
            continue
        manifest, digest = found
        image = _content(archive, manifest, digest, blobs, entry.digest)
        _, names = by_content.setdefault(entry.digest, (image, []))
        names += [name for name in _names(entry, tags.get(manifest.config.digest, ())) if name not in names]
    for image, names in by_content.values():
        yield _Found(image.content, image.target, tuple(names), image.blobs)


def _descend(
    archive: Archive, entry: Descriptor, matcher: PlatformMatcher, blobs: dict[Digest, bytes], depth: int
) -> tuple[Manifest, Digest] | None:
    """The manifest for the platform below an entry; what was read on the way goes to `blobs`."""
    raw = _blob(archive, entry)
    document = parse_manifest(raw, media_type=entry.media_type, what=f"manifest {entry.digest}")
    blobs[entry.digest] = raw
    if isinstance(document, Manifest):
        return document, entry.digest
    if depth == 0:
        raise ImageMalformed(f"index {entry.digest}: nested too deep")
    for candidate in matcher.best(document.manifests or ()):
        # An archive need not hold every platform that its index names.
        if archive.find(_blob_name(candidate.digest)) is not None:
            return _descend(archive, candidate, matcher, blobs, depth - 1)
    return None


def _content(
    archive: Archive, manifest: Manifest, digest: Digest, blobs: dict[Digest, bytes], target: Digest
) -> _Found:
    members = {
        layer.digest: member
        for layer in manifest.layers or ()
        if (member := archive.find(_blob_name(layer.digest))) is not None
    }
    raw = b"{}" if manifest.config.digest == EMPTY else _blob(archive, manifest.config)
    if not manifest.is_image:
        content = Content(manifest, digest, digest, {**blobs, manifest.config.digest: raw}, None)
        return _Found(content, target, (), members)
    config = parse_image_config(raw, what=f"config {manifest.config.digest}")
    content = Content(
        manifest, digest, manifest.config.digest, {**blobs, manifest.config.digest: raw}, config
    )
    return _Found(content, target, (), members)


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _blob(archive: Archive, descriptor: Descriptor) -> bytes:
    data = archives.read(archive.find(_blob_name(descriptor.digest)), f"blob {descriptor.digest}")
    if not descriptor.digest.matches(data):
        raise ImageMalformed(f"blob {descriptor.digest} has another digest")
    return data


def _names(entry: Descriptor, tags: tuple[str, ...]) -> list[str]:
    """References of an index entry: what annotations say in full, and what docker's manifest says."""
    annotations = entry.annotations or {}
    names: list[str] = []
    short = annotations.get(ANNOTATION_REF_NAME, "")
    for text in (
        annotations.get(ANNOTATION_IMAGE_NAME, ""),
        short if "/" in short or ":" in short else "",
        *tags,
    ):
        if text:
            with contextlib.suppress(InvalidReference):
                names.append(Reference.parse(text).canonical)
    return list(dict.fromkeys(names))


def _docker_tags(archive: Archive) -> dict[str, tuple[str, ...]]:
    """Tags by config digest from the manifest.json that stands beside an OCI index."""
    if archive.find("manifest.json") is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for item in _docker_manifest(archive):
        name = str(item.get("Config", "")).removesuffix(".json").rpartition("/")[2]
        found[f"sha256:{name}"] = tuple(map(str, item.get("RepoTags") or ()))
    return found


def _docker_manifest(archive: Archive) -> list[dict[str, Any]]:
    items = archives.read_json(archive.find("manifest.json"), "manifest.json")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ImageMalformed("manifest.json: it is no list of images")
    return items


def _docker_images(archive: Archive) -> Iterator[_Found]:
    for item in _docker_manifest(archive):
        raw = archives.read(archive.find(str(item.get("Config", ""))), "image config")
        config = parse_image_config(raw)
        names = [Reference.parse(str(tag)).canonical for tag in item.get("RepoTags") or ()]
        layers = item.get("Layers") or []
        if len(layers) != len(config.diff_ids):
            raise ImageMalformed(
                f"manifest.json: {len(layers)} layers, but the config has {len(config.diff_ids)} diff IDs"
            )
        blobs: dict[Digest, Member] = {}
        descriptors: list[Descriptor] = []
        for layer, diff_id in zip(layers, config.diff_ids, strict=True):
            member = archive.find(str(layer))
            if member is None:
                raise ImageMalformed(f"layer {layer!r} is missing in the archive")
            descriptor = _describe(member, diff_id)
            blobs[descriptor.digest] = member
            descriptors.append(descriptor)
        digest = Digest.of(raw)
        manifest = Manifest(
            schema_version=2,
            media_type=MediaType.OCI_MANIFEST.value,
            config=Descriptor(MediaType.OCI_CONFIG.value, digest, len(raw)),
            layers=tuple(descriptors),
        )
        data = encode(manifest)
        target = Digest.of(data)
        content = Content(manifest, target, digest, {target: data, digest: raw}, config)
        yield _Found(content, target, tuple(dict.fromkeys(names)), blobs)


def _describe(member: Member, diff_id: Digest) -> Descriptor:
    """A layer of a docker archive: a plain tar as a rule, whose digest is the diff ID then."""
    fd = os.open(member.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, 6, member.offset)
        if not head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
            return Descriptor(MediaType.OCI_LAYER.value, diff_id, member.size)
        hasher = hashlib.sha256()
        position, end = member.offset, member.offset + member.size
        while position < end and (chunk := os.pread(fd, min(1 << 20, end - position), position)):
            hasher.update(chunk)
            position += len(chunk)
        packed = MediaType.OCI_LAYER_GZIP if head.startswith(b"\x1f\x8b") else MediaType.OCI_LAYER_ZSTD
        return Descriptor(packed.value, Digest.finish(hasher), member.size)
    finally:
        os.close(fd)
