"""Sigstore bundles v0.3, which cosign 3 stores as OCI referrers.

https://github.com/sigstore/protobuf-specs (sigstore_bundle.proto), https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec
from triptych_oci import MediaType

from triptych_image.policy.claims import Form, Signature

_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


class _Signature(msgspec.Struct):
    sig: str


class _Envelope(msgspec.Struct, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_Signature]


class _Bundle(msgspec.Struct, rename="camel"):
    """Of what there is, the envelope alone is read: the key is the policy's, not the bundle's."""

    media_type: str
    dsse_envelope: _Envelope | None = None


def read_bundle(text: bytes) -> Signature | None:
    """The signature in a bundle; None when it is malformed, or no signed statement."""
    try:
        bundle = msgspec.json.decode(text, type=_Bundle)
        envelope = bundle.dsse_envelope
        if bundle.media_type != MediaType.SIGSTORE_BUNDLE or envelope is None:
            return None
        if envelope.payload_type != _PAYLOAD_TYPE or len(envelope.signatures) != 1:
            return None
        payload = base64.b64decode(envelope.payload, validate=True)
        signature = base64.b64decode(envelope.signatures[0].sig, validate=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
        return None
    return Signature(Form.STATEMENT, _authenticated(payload), payload, signature)


def _authenticated(payload: bytes) -> bytes:
    """What a DSSE signature is over: the payload with its type, each with its length."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
