"""Image names: the reference grammar of the distribution project, with Docker Hub's short forms.

reference  = name [ ":" tag ] [ "@" digest ]
name       = [ domain "/" ] path
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from triptych_oci.digest import Digest
from triptych_oci.errors import InvalidDigest, InvalidReference

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_LEGACY_DOMAIN: Final = "index.docker.io"
_OFFICIAL: Final = "library"
_MAX_NAME: Final = 255
_MAX_TEXT: Final = 4096

_LABEL: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII)
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG: Final = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_IDENTIFIER: Final = re.compile(r"[a-f0-9]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalized image name; make one with `Reference.parse`.

    :param domain: registry as `host[:port]`; `docker.io` for Docker Hub.
    :param path: repository within the registry (`library/busybox`).
    """

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, default_tag: bool = True) -> Self:
        """Parse a name as people write it.

        :param default_tag: whether a name without tag and digest gets `latest`.
        :raises InvalidReference: naming the text and what is wrong with it.
        """
        if not text:
            raise InvalidReference(text, "it is empty")
        if len(text) > _MAX_TEXT:
            raise InvalidReference(text, f"it is longer than {_MAX_TEXT} characters")
        if _IDENTIFIER.fullmatch(text):
            raise InvalidReference(text, "64 hex digits are an image ID, not a name")
        rest, digest = _split_digest(text)
        domain, remainder = _split_domain(rest)
        path, tag = _split_tag(text, remainder)
        _check_name(text, domain, path)
        if domain == DEFAULT_DOMAIN and "/" not in path:
            path = f"{_OFFICIAL}/{path}"
        if len(path) > _MAX_NAME:
            raise InvalidReference(text, f"the repository name is longer than {_MAX_NAME} characters")
        if tag is None and digest is None and default_tag:
            tag = DEFAULT_TAG
        return cls(domain, path, tag, digest)

    @property
    def name(self) -> str:
        """`domain/path`, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def selector(self) -> str:
        """What to ask a registry for: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def canonical(self) -> str:
        """`name@digest` when there is a digest (the tag is dropped, as peers do), else `name:tag`."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag or DEFAULT_TAG}"

    def __str__(self) -> str:
        tag, digest = f":{self.tag}" if self.tag else "", f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def _split_digest(text: str) -> tuple[str, Digest | None]:
    rest, at, digest = text.partition("@")
    if not at:
        return rest, None
    try:
        return rest, Digest(digest)
    except InvalidDigest as error:
        raise InvalidReference(text, error.message) from None


def _split_domain(rest: str) -> tuple[str, str]:
    """Tell a registry from the first part of a Docker Hub path, as Docker does."""
    head, slash, tail = rest.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, rest
    if "." in head or ":" in head or head == "localhost" or head.lower() != head:
        return (DEFAULT_DOMAIN if head == _LEGACY_DOMAIN else head), tail
    return DEFAULT_DOMAIN, rest


def _split_tag(text: str, remainder: str) -> tuple[str, str | None]:
    path, colon, tag = remainder.partition(":")
    if not colon:
        return path, None
    if _TAG.fullmatch(tag) is None:
        raise InvalidReference(
            text, "the tag must be 1 to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'"
        )
    return path, tag


def _check_name(text: str, domain: str, path: str) -> None:
    if _DOMAIN.fullmatch(domain) is None:
        raise InvalidReference(text, f"{domain!r} is no registry host")
    if not path:
        raise InvalidReference(text, "the repository name is missing")
    if path.lower() != path:
        raise InvalidReference(text, "the repository name must be lower case")
    if _PATH.fullmatch(path) is None:
        raise InvalidReference(
            text,
            "the repository name must be of a-z and 0-9, with '/', '.', '_', '__' or '-' between",
        )
