"""Whether a signature was made for the image that is asked for."""

from __future__ import annotations

from typing import assert_never

from triptych_oci import InvalidReference, Reference

from triptych_image.policy.document import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
    SignedIdentity,
)
from triptych_image.policy.errors import InvalidPolicy


def accepts(identity: SignedIdentity, image: Reference, signed: str) -> bool:
    """Whether a policy's identity rule accepts what a signature names.

    :param image: the reference that is asked for.
    :param signed: `docker-reference` of the signature.
    :raises InvalidPolicy: when the policy names something that is no reference.
    """
    try:
        named = Reference.parse(signed, default_tag=False)
    except InvalidReference:
        return False
    match identity:
        case MatchExact():
            return image.digest is None and _same(image, named)
        case MatchRepoDigestOrExact():
            return _repo_digest_or_exact(image, named)
        case MatchRepository():
            return image.name == named.name
        case ExactReference():
            wanted = _parse(identity.docker_reference)
            return wanted == named and not (named.tag is None and named.digest is None)
        case ExactRepository():
            return _parse(identity.docker_repository).name == named.name
        case RemapIdentity():
            return _repo_digest_or_exact(_remapped(identity, image), named)
    assert_never(identity)


def _same(image: Reference, named: Reference) -> bool:
    """The same tag of the same repository; a signature without tag names no image."""
    return image.name == named.name and image.tag is not None and image.tag == named.tag


def _repo_digest_or_exact(image: Reference, named: Reference) -> bool:
    if image.digest is not None:
        return image.name == named.name
    return _same(image, named)


def _remapped(identity: RemapIdentity, image: Reference) -> Reference:
    name, prefix = str(image), identity.prefix
    if image.name != prefix and not name.startswith((f"{prefix}/", f"{prefix}:", f"{prefix}@")):
        return image
    return _parse(identity.signed_prefix + name[len(prefix) :])


def _parse(text: str) -> Reference:
    try:
        return Reference.parse(text, default_tag=False)
    except InvalidReference as error:
        raise InvalidPolicy(f"signedIdentity: {error.message}") from None
