"""Sigstore signatures of an image, as cosign stores them beside it."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from triptych_oci import Descriptor, Digest, InvalidDocument, Manifest, MediaType, UnsupportedDocument

from triptych_image.policy.bundle import read_bundle
from triptych_image.policy.claims import SIGN_PREDICATE, Form, Signature
from triptych_image.registry import ContentMismatch, ContentNotFound, Repository

_ANNOTATION: Final = "dev.cosignproject.cosign/signature"
_PREDICATE: Final = "dev.sigstore.bundle.predicateType"
_REFERRERS: Final = frozenset({MediaType.COSIGN_ARTIFACT.value, MediaType.SIGSTORE_BUNDLE.value})
_MAX_PAYLOAD: Final = 1 << 20
_MAX_SIGNATURES: Final = 64
_MAX_REFERRERS: Final = 16
_MALFORMED: Final = (ContentNotFound, ContentMismatch, InvalidDocument, UnsupportedDocument)
"""What is listed and gone, as garbage collectors of registries leave it, or is nothing to read."""


async def find_signatures(repository: Repository, digest: Digest) -> AsyncIterator[Signature]:
    """The signatures of a manifest: by cosign's tag scheme, then by OCI referrers, bundles included.

    Malformed ones are left out: whoever may write to the repository can put them there.
    """
    count = 0
    async for manifest in _manifests(repository, digest):
        for layer in manifest.layers or ():
            if count >= _MAX_SIGNATURES:
                return
            count += 1
            try:
                signature = await _signature(repository, layer)
            except _MALFORMED:
                continue
            if signature is not None:
                yield signature


async def _manifests(repository: Repository, digest: Digest) -> AsyncIterator[Manifest]:
    try:
        found = await repository.resolve(f"{digest.algorithm}-{digest.hex}.sig")
    except _MALFORMED:
        pass
    else:
        if isinstance(found.document, Manifest):
            yield found.document
    signing = [entry for entry in await repository.referrers(digest) if _signs(entry)]
    for entry in signing[:_MAX_REFERRERS]:
        with contextlib.suppress(*_MALFORMED):
            document = (await repository.fetch_manifest(entry)).document
            if isinstance(document, Manifest):
                yield document


def _signs(entry: Descriptor) -> bool:
    """Whether a referrer may hold signatures; bundles are used for other statements as well."""
    predicate = (entry.annotations or {}).get(_PREDICATE, SIGN_PREDICATE)
    return entry.artifact_type in _REFERRERS and predicate == SIGN_PREDICATE


async def _signature(repository: Repository, layer: Descriptor) -> Signature | None:
    if layer.size > _MAX_PAYLOAD:
        return None
    if layer.media_type == MediaType.SIGSTORE_BUNDLE:
        return read_bundle(await repository.fetch_blob(layer, limit=_MAX_PAYLOAD))
    text = (layer.annotations or {}).get(_ANNOTATION)
    if layer.media_type != MediaType.COSIGN_SIGNATURE or not text:
        return None
    try:
        signature = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    payload = await repository.fetch_blob(layer, limit=_MAX_PAYLOAD)
    return Signature(Form.SIMPLE_SIGNING, payload, payload, signature)
