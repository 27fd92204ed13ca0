"""What signatures say was signed: simple signing payloads, and in-toto statements in DSSE envelopes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

import msgspec

_SIMPLE_TYPE: Final = "cosign container image signature"
_STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
SIGN_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
"""The predicate of `cosign sign`. Statements of provenance or of scans are no consent to run an image."""


class Form(enum.Enum):
    """How the payload of a signature is written."""

    SIMPLE_SIGNING = "simple signing"
    STATEMENT = "in-toto statement"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature as it was found; nothing of it is verified yet.

    :param signed: the bytes that the signature is over.
    :param payload: what to read when it is good; the same bytes for simple signing.
    """

    form: Form
    signed: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a payload says was signed.

    :param reference: the image's name; None when it has none, as bundles of `cosign sign`.
    """

    digest: str
    reference: str | None


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


class _Subject(msgspec.Struct):
    digest: dict[str, str]
    name: str = ""


class _Statement(msgspec.Struct, rename="camel"):
    """https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md"""

    type: str = msgspec.field(name="_type")
    predicate_type: str
    subject: list[_Subject]


def read_claims(signature: Signature) -> list[Claim]:
    """The claims of a verified payload; none when it is not of the form that cosign signs."""
    read = _simple if signature.form is Form.SIMPLE_SIGNING else _statement
    try:
        return read(signature.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []


def _simple(payload: bytes) -> list[Claim]:
    critical = msgspec.json.decode(payload, type=_Payload).critical
    if critical.type != _SIMPLE_TYPE:
        return []
    return [Claim(critical.image.docker_manifest_digest, critical.identity.docker_reference)]


def _statement(payload: bytes) -> list[Claim]:
    statement = msgspec.json.decode(payload, type=_Statement)
    if statement.type != _STATEMENT_TYPE or statement.predicate_type != SIGN_PREDICATE:
        return []
    return [
        Claim(f"{algorithm}:{value}", subject.name or None)
        for subject in statement.subject
        for algorithm, value in subject.digest.items()
    ]
