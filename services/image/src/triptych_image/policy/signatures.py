"""Sigstore signatures of an image, as cosign stores them beside it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
from triptych_oci import Descriptor, Digest, Manifest, MediaType

from triptych_image.registry import ContentNotFound, Repository

_ANNOTATION: Final = "dev.cosignproject.cosign/signature"
_TYPE: Final = "cosign container image signature"
_MAX_PAYLOAD: Final = 1 << 20
_MAX_SIGNATURES: Final = 64
_MAX_REFERRERS: Final = 16


class _Identity(msgspec.Struct, forbid_unknown_fields=True):
    docker_reference: str = msgspec.field(name="docker-reference")


class _Image(msgspec.Struct, forbid_unknown_fields=True):
    docker_manifest_digest: str = msgspec.field(name="docker-manifest-digest")


class _Critical(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    image: _Image
    identity: _Identity


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    critical: _Critical
    optional: msgspec.Raw = msgspec.Raw()


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature as it was found; nothing of it is verified yet.

    :param payload: the signed bytes (simple signing).
    """

    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a payload says was signed."""

    digest: str
    reference: str


def read_claim(payload: bytes) -> Claim | None:
    """The claim of a verified payload; None when it is not of the form that cosign signs."""
    try:
        critical = msgspec.json.decode(payload, type=_Payload).critical
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if critical.type != _TYPE:
        return None
    return Claim(critical.image.docker_manifest_digest, critical.identity.docker_reference)


async def find_signatures(repository: Repository, digest: Digest) -> AsyncIterator[Signature]:
    """The signatures of a manifest: by cosign's tag scheme, then by OCI referrers.

    Malformed ones are left out: whoever may write to the repository can put them there.
    """
    count = 0
    async for manifest in _manifests(repository, digest):
        for layer in manifest.layers or ():
            if count >= _MAX_SIGNATURES:
                return
            count += 1
            signature = _signature(layer)
            if signature is None or layer.size > _MAX_PAYLOAD:
                continue
            payload = await repository.fetch_blob(layer, limit=_MAX_PAYLOAD)
            yield Signature(payload, signature)


async def _manifests(repository: Repository, digest: Digest) -> AsyncIterator[Manifest]:
    try:
        found = await repository.resolve(f"{digest.algorithm}-{digest.hex}.sig")
    except ContentNotFound:
        pass
    else:
        if isinstance(found.document, Manifest):
            yield found.document
    for entry in (await repository.referrers(digest, MediaType.COSIGN_ARTIFACT))[:_MAX_REFERRERS]:
        document = (await repository.fetch_manifest(entry)).document
        if isinstance(document, Manifest):
            yield document


def _signature(layer: Descriptor) -> bytes | None:
    text = (layer.annotations or {}).get(_ANNOTATION)
    if layer.media_type != MediaType.COSIGN_SIGNATURE or not text:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
