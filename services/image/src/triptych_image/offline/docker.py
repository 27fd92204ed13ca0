"""Docker archives, as `docker save` writes them: a list of images with their layers as plain tars."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import msgspec
from triptych_oci import (
    Compression,
    Descriptor,
    Digest,
    ImageConfig,
    Manifest,
    MediaType,
    encode,
    parse_image_config,
    sniff_compression,
)

from triptych_image.errors import ImageMalformed
from triptych_image.offline.documents import Documents, Found, name_for
from triptych_image.offline.members import Member
from triptych_image.pull.puller import Content

LIST = "manifest.json"


class _Image(msgspec.Struct, rename="pascal"):
    config: str = ""
    repo_tags: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None


def docker_images(documents: Documents) -> Iterator[Found]:
    """The images of the archive.

    :raises ImageMalformed: for what does not fit together.
    """
    packed: dict[Member, Descriptor] = {}
    for item in _list(documents):
        raw = documents.read(item.config, "image config")
        config = parse_image_config(raw)
        names = item.layers or ()
        if len(names) != len(config.diff_ids):
            raise ImageMalformed(
                f"{LIST}: {len(names)} layers, but the config has {len(config.diff_ids)} diff IDs"
            )
        blobs: dict[Digest, Member] = {}
        layers: list[Descriptor] = []
        for name, diff_id in zip(names, config.diff_ids, strict=True):
            member = documents.archive.find(name)
            if member is None:
                raise ImageMalformed(f"layer {name!r} is missing in the archive")
            layer = packed.get(member) or _describe(member, diff_id)
            if layer.media_type != MediaType.OCI_LAYER:
                packed[member] = layer
            blobs[layer.digest] = member
            layers.append(layer)
        yield Found(*_described(item, raw, config, tuple(layers)), blobs)


def docker_tags(documents: Documents) -> dict[str, tuple[str, ...]]:
    """Tags by config digest from the list that stands beside an OCI index; none without one."""
    found: dict[str, tuple[str, ...]] = {}
    if documents.archive.find(LIST) is not None:
        for item in _list(documents):
            digest = f"sha256:{item.config.removesuffix('.json').rpartition('/')[2]}"
            found[digest] = (*found.get(digest, ()), *(item.repo_tags or ()))
    return found


def _list(documents: Documents) -> list[_Image]:
    try:
        return msgspec.json.decode(documents.read(LIST, LIST), type=list[_Image])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ImageMalformed(f"{LIST}: {error}") from None


def _described(
    item: _Image, raw: bytes, config: ImageConfig, layers: tuple[Descriptor, ...]
) -> tuple[Content, Digest, tuple[str, ...]]:
    """With a manifest, which these archives have none of; its digest, and the names."""
    digest = Digest.of(raw)
    manifest = Manifest(
        schema_version=2,
        media_type=MediaType.OCI_MANIFEST.value,
        config=Descriptor(MediaType.OCI_CONFIG.value, digest, len(raw)),
        layers=layers,
    )
    data = encode(manifest)
    target = Digest.of(data)
    names: dict[str, None] = {}
    for tag in item.repo_tags or ():
        name = name_for(tag, target)
        if name is None:
            raise ImageMalformed(f"{LIST}: {tag[:200]!r} is no name with a tag")
        names[name] = None
    return Content(manifest, target, digest, {target: data, digest: raw}, config), target, tuple(names)


def _describe(member: Member, diff_id: Digest) -> Descriptor:
    """A layer of a docker archive: a plain tar as a rule, whose digest is the diff ID then."""
    fd = member.open()
    try:
        packing = sniff_compression(os.pread(fd, 6, member.offset))
        if packing is Compression.NONE:
            return Descriptor(MediaType.OCI_LAYER.value, diff_id, member.size)
        hasher = hashlib.sha256()
        position, end = member.offset, member.offset + member.size
        while position < end and (chunk := os.pread(fd, min(1 << 20, end - position), position)):
            hasher.update(chunk)
            position += len(chunk)
        kind = MediaType.OCI_LAYER_GZIP if packing is Compression.GZIP else MediaType.OCI_LAYER_ZSTD
        return Descriptor(kind.value, Digest.finish(hasher), member.size)
    finally:
        os.close(fd)
