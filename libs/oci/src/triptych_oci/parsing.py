"""From bytes that nobody vouches for to documents, within bounds and with errors that name the thing."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from triptych_oci.digest import Digest
from triptych_oci.documents import Descriptor, ImageConfig, Index, Manifest
from triptych_oci.errors import InvalidDocument, UnsupportedDocument
from triptych_oci.media_types import INDEX_TYPES, MANIFEST_TYPES, SCHEMA1_TYPES, MediaType, plain

MAX_DOCUMENT: Final = 4 << 20
MAX_LAYERS: Final = 2000
MAX_ENTRIES: Final = 4000
_MAX_WITH_NULLS: Final = 256 << 10

T = TypeVar("T")


def _decode_hook(kind: type, value: object) -> object:
    if kind is Digest:
        if not isinstance(value, str):
            raise ValueError("a digest is a text")
        try:
            return Digest(value)
        except Exception as error:
            raise ValueError(str(error)) from None
    raise NotImplementedError(f"no decoding into {kind}")


class _Probe(msgspec.Struct, rename="camel"):
    """What tells the kinds of manifest apart."""

    schema_version: int = 0
    media_type: str = ""
    config: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()
    manifests: msgspec.Raw = msgspec.Raw()
    fs_layers: msgspec.Raw = msgspec.Raw()


_probe: Final = msgspec.json.Decoder(_Probe)
_manifest: Final = msgspec.json.Decoder(Manifest, dec_hook=_decode_hook)
_index: Final = msgspec.json.Decoder(Index, dec_hook=_decode_hook)
_config: Final = msgspec.json.Decoder(ImageConfig, dec_hook=_decode_hook)
_descriptor: Final = msgspec.json.Decoder(Descriptor, dec_hook=_decode_hook)


def parse_manifest(
    data: bytes, *, media_type: str = "", what: str = "manifest", limit: int = MAX_DOCUMENT
) -> Manifest | Index:
    """Parse an OCI manifest or index, a Docker schema 2 manifest or manifest list, or an OCI artifact.

    The document's own `mediaType` and shape decide; `media_type`, what the server called it, must not
    contradict them.

    :param what: names the document in errors, such as "manifest docker.io/library/busybox:latest".
    :param limit: bytes accepted.
    :raises InvalidDocument: too big, no JSON, wrong shape, contradicting types, too many layers.
    :raises UnsupportedDocument: manifest schema 1, or the withdrawn OCI artifact manifest.
    """
    probe = _decode(_probe, data, what, limit)
    kind = _kind(probe, plain(media_type), what)
    if kind in INDEX_TYPES:
        index = _decode(_index, data, what, limit)
        entries = len(index.manifests or ())
        if entries > MAX_ENTRIES:
            raise InvalidDocument(f"{what}: {entries} manifests, more than {MAX_ENTRIES}")
        return msgspec.structs.replace(index, media_type=kind)
    manifest = _decode(_manifest, data, what, limit)
    layers = len(manifest.layers or ())
    if layers > MAX_LAYERS:
        raise InvalidDocument(f"{what}: {layers} layers, more than {MAX_LAYERS}")
    return msgspec.structs.replace(manifest, media_type=kind)


def parse_image_config(data: bytes, *, what: str = "image config", limit: int = MAX_DOCUMENT) -> ImageConfig:
    """Parse the config blob of an image.

    :raises InvalidDocument: too big, no JSON, or of the wrong shape.
    """
    config = _decode(_config, data, what, limit)
    if config.rootfs.type != "layers":
        raise InvalidDocument(f"{what}: rootfs.type is {config.rootfs.type!r}, expected 'layers'")
    return config


def parse_descriptor(data: bytes, *, what: str = "descriptor") -> Descriptor:
    """Parse one descriptor.

    :raises InvalidDocument: when it is none.
    """
    return _decode(_descriptor, data, what, MAX_DOCUMENT)


def check_layer_count(manifest: Manifest, config: ImageConfig, what: str) -> None:
    """Every layer of an image has a diff ID.

    :raises InvalidDocument: when manifest and config disagree.
    """
    layers, diffs = len(manifest.layers or ()), len(config.diff_ids)
    if layers != diffs:
        raise InvalidDocument(f"{what}: the manifest has {layers} layers, the config {diffs} diff IDs")


def encode(document: msgspec.Struct) -> bytes:
    """A document as JSON; for new documents only, since what was pulled is kept byte by byte."""
    return msgspec.json.encode(document, enc_hook=_encode_hook)


def _encode_hook(value: object) -> str:
    if isinstance(value, Digest):
        return str.__str__(value)
    raise NotImplementedError(f"no encoding of {type(value)}")


def _decode(decoder: msgspec.json.Decoder[T], data: bytes, what: str, limit: int) -> T:
    if len(data) > limit:
        raise InvalidDocument(f"{what}: {len(data)} bytes, more than the limit of {limit}")
    try:
        try:
            return decoder.decode(data)
        except msgspec.ValidationError:
            if b"null" not in data or len(data) > _MAX_WITH_NULLS:
                raise
            return decoder.decode(msgspec.json.encode(without_nulls(msgspec.json.decode(data))))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidDocument(f"{what}: {error}") from None


def without_nulls(value: Any) -> Any:
    """JSON as Go programs read it, so those of images and of CNI: a field that is null is not there."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _has(value: msgspec.Raw) -> bool:
    return bytes(value) not in (b"", b"null")


def _kind(probe: _Probe, served_as: str, what: str) -> str:
    """The media type of a manifest, from its own words, its shape and what the server called it."""
    own = plain(probe.media_type)
    if _has(probe.fs_layers) or probe.schema_version == 1 or {own, served_as} & SCHEMA1_TYPES:
        raise UnsupportedDocument(
            f"{what}: Docker manifest schema 1 is not supported",
            hint="push the image again with a current tool, which writes schema 2 or OCI",
        )
    if MediaType.OCI_ARTIFACT_MANIFEST in (own, served_as):
        raise UnsupportedDocument(f"{what}: the withdrawn OCI artifact manifest type is not supported")
    is_index = _has(probe.manifests)
    if is_index and (_has(probe.layers) or _has(probe.config)):
        # One digest must not mean two things to two readers (GHSA-mc8v-mgrf-8f4m).
        raise InvalidDocument(f"{what}: it has both manifests and layers, which is ambiguous")
    if not is_index and not _has(probe.config):
        raise InvalidDocument(f"{what}: it has neither config nor manifests, so it is no image manifest")
    shape = INDEX_TYPES if is_index else MANIFEST_TYPES
    for claim in (own, served_as):
        if claim in INDEX_TYPES | MANIFEST_TYPES and claim not in shape:
            raise InvalidDocument(f"{what}: its content contradicts its type {claim}")
    if probe.schema_version != 2:
        raise InvalidDocument(f"{what}: schemaVersion is {probe.schema_version}, expected 2")
    known = next((claim for claim in (own, served_as) if claim in shape), None)
    if own and own not in shape:
        raise UnsupportedDocument(f"{what}: manifests of type {own!r} are not supported")
    return known or (MediaType.OCI_INDEX if is_index else MediaType.OCI_MANIFEST).value
