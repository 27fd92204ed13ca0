"""containers-policy.json(5): its shape, strictly."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Final

import msgspec

from triptych_image.policy.errors import InvalidPolicy

_MAX_FILE: Final = 4 << 20


class MatchExact(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="matchExact", tag_field="type"
):
    """The signature names the very reference: the tag, or for an image by digest the digest."""


class MatchRepoDigestOrExact(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="matchRepoDigestOrExact", tag_field="type"
):
    """As `matchExact`, but for images by digest any tag of the repository will do. The default."""


class MatchRepository(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="matchRepository", tag_field="type"
):
    """The signature names the same repository, with whatever tag."""


class ExactReference(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="exactReference",
    tag_field="type",
    rename="camel",
):
    """The signature names this reference."""

    docker_reference: str


class ExactRepository(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="exactRepository",
    tag_field="type",
    rename="camel",
):
    """The signature names this repository."""

    docker_repository: str


class RemapIdentity(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="remapIdentity",
    tag_field="type",
    rename="camel",
):
    """As `matchRepoDigestOrExact` after `prefix` of the image's name became `signedPrefix`."""

    prefix: str
    signed_prefix: str


SignedIdentity = (
    MatchExact | MatchRepoDigestOrExact | MatchRepository | ExactReference | ExactRepository | RemapIdentity
)


class AcceptAnything(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="insecureAcceptAnything", tag_field="type"
):
    """Every image passes."""


class Reject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="reject", tag_field="type"):
    """No image passes."""


class SignedBy(msgspec.Struct, frozen=True, tag="signedBy", tag_field="type"):
    """GPG signatures; parsed so that other scopes of the file work."""


class SigstoreSigned(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag="sigstoreSigned",
    tag_field="type",
    rename="camel",
):
    """A sigstore signature by one of the keys; exactly one of the four key fields is given."""

    key_path: str | None = None
    key_paths: tuple[str, ...] | None = None
    key_data: str | None = None
    key_datas: tuple[str, ...] | None = None
    signed_identity: SignedIdentity = MatchRepoDigestOrExact()
    fulcio: msgspec.Raw = msgspec.Raw()
    pki: msgspec.Raw = msgspec.Raw()
    rekor_public_key_path: msgspec.Raw = msgspec.Raw()
    rekor_public_key_paths: msgspec.Raw = msgspec.Raw()
    rekor_public_key_data: msgspec.Raw = msgspec.Raw()
    rekor_public_key_datas: msgspec.Raw = msgspec.Raw()

    @property
    def unsupported(self) -> str:
        """The first field that is given but not supported, or ""."""
        names = ("fulcio", "pki", "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData")
        values = (
            self.fulcio,
            self.pki,
            self.rekor_public_key_path,
            self.rekor_public_key_paths,
            self.rekor_public_key_data,
            self.rekor_public_key_datas,
        )
        for name, value in zip((*names, "rekorPublicKeyDatas"), values, strict=True):
            if bytes(value):
                return name
        return ""


Requirement = AcceptAnything | Reject | SignedBy | SigstoreSigned
Requirements = tuple[Requirement, ...]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy: what each scope of each transport requires, and all else."""

    default: Requirements
    transports: dict[str, dict[str, Requirements]] = {}


class PolicyFile:
    """Reads a policy; what was parsed is kept until the file changes."""

    def __init__(self) -> None:
        self._known: tuple[tuple[str, int, int, int], Policy] | None = None

    def load(self, path: str) -> Policy:
        """The policy in a file.

        :raises InvalidPolicy: when it cannot be read or understood; a policy is never guessed.
        """
        file = Path(path)
        try:
            status = os.stat(file)
            identity = (path, status.st_ino, status.st_size, status.st_mtime_ns)
            if self._known is not None and self._known[0] == identity:
                return self._known[1]
            if status.st_size > _MAX_FILE:
                raise InvalidPolicy(f"policy {file}: larger than {_MAX_FILE} bytes")
            text = file.read_bytes()
        except OSError as error:
            raise InvalidPolicy(f"policy {file}: {error.strerror}") from None
        policy = parse_policy(text, f"policy {file}")
        self._known = (identity, policy)
        return policy


def parse_policy(text: bytes, what: str) -> Policy:
    """Parse and check a policy.

    :raises InvalidPolicy: naming the place.
    """
    try:
        policy = msgspec.json.decode(text, type=Policy)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPolicy(f"{what}: {error}") from None
    _check("default", policy.default, what)
    for transport, scopes in policy.transports.items():
        for scope, requirements in scopes.items():
            _check(f"transports.{transport}.{scope!r}", requirements, what)
    return policy


def _check(place: str, requirements: Requirements, what: str) -> None:
    if not requirements:
        raise InvalidPolicy(f"{what}: {place}: a list of requirements must not be empty")
    for requirement in requirements:
        if isinstance(requirement, SigstoreSigned) and not requirement.unsupported:
            _check_keys(place, requirement, what)


def _check_keys(place: str, requirement: SigstoreSigned, what: str) -> None:
    keys = (requirement.key_path, requirement.key_paths, requirement.key_data, requirement.key_datas)
    if sum(key is not None for key in keys) != 1:
        raise InvalidPolicy(
            f"{what}: {place}: exactly one of keyPath, keyPaths, keyData and keyDatas must be given"
        )


def key_texts(requirement: SigstoreSigned) -> list[tuple[str, bytes]]:
    """The PEM texts of the keys, each with a name for errors.

    :raises InvalidPolicy: when a file is unreadable or data is no base64.
    """
    paths = requirement.key_paths or ((requirement.key_path,) if requirement.key_path else ())
    found: list[tuple[str, bytes]] = []
    for path in paths:
        try:
            found.append((path, Path(path).read_bytes()))
        except OSError as error:
            raise InvalidPolicy(f"key {path}: {error.strerror}") from None
    datas = requirement.key_datas or ((requirement.key_data,) if requirement.key_data else ())
    for data in datas:
        try:
            found.append(("keyData", base64.b64decode(data, validate=True)))
        except (binascii.Error, ValueError):
            raise InvalidPolicy("keyData is not base64") from None
    return found
