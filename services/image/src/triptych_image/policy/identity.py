"""Whether a signature was made for the image that is asked for."""

from __future__ import annotations

from dataclasses import replace
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
    if image.digest is not None:
        image = replace(image, tag=None)  # the digest alone decides what is pulled
    match identity:
        case MatchExact():
            return _same(image, named)
        case MatchRepoDigestOrExact():
            return _repo_digest_or_exact(image, named)
        case MatchRepository():
            return image.name == named.name
        case ExactReference():
            return _same(_parse(identity.docker_reference), named)
        case ExactRepository():
            return _parse(identity.docker_repository).name == named.name
        case RemapIdentity():
            return _repo_digest_or_exact(_remapped(identity, image), named)
    assert_never(identity)


def _same(image: Reference, named: Reference) -> bool:
    """The very same reference; a repository alone, as `cosign sign` names it, is no image."""
    return not _is_name_only(named) and str(image) == str(named)


def _repo_digest_or_exact(image: Reference, named: Reference) -> bool:
    if image.digest is not None:
        return image.name == named.name and not _is_name_only(named)
    return _same(image, named)


def _is_name_only(named: Reference) -> bool:
    return named.tag is None and named.digest is None


def _remapped(identity: RemapIdentity, image: Reference) -> Reference:
    """The domain counts with its port: "example.com" is no prefix of "example.com:5000/app"."""
    if image.name != identity.prefix and not image.name.startswith(f"{identity.prefix}/"):
        return image
    return _parse(identity.signed_prefix + str(image)[len(identity.prefix) :])


def _parse(text: str) -> Reference:
    try:
        return Reference.parse(text, default_tag=False)
    except InvalidReference as error:
        raise InvalidPolicy(f"signedIdentity: {error.message}") from None
