"""What can be wrong with names and documents of images."""

from __future__ import annotations

from triptych_errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented


class InvalidDigest(InvalidArgument):
    """A digest that is not `sha256:` or `sha512:` with as many lower-case hex digits as it needs."""


class InvalidReference(InvalidArgument):
    """An image name outside the reference grammar."""

    def __init__(self, text: str, reason: str) -> None:
        shown = text if len(text) <= 300 else f"{text[:300]}..."
        super().__init__(f"invalid image reference {shown!r}: {reason}")


class InvalidPlatform(InvalidArgument):
    """A platform that is not `os/architecture[/variant]`."""


class InvalidDocument(FailedPrecondition):
    """A manifest, index or config that is too big, no JSON, or of the wrong shape."""


class UnsupportedDocument(Unimplemented):
    """A document of a known kind that triptych does not take, such as manifest schema 1."""


class NoMatchingPlatform(NotFound):
    """An index without a manifest for the platform asked for."""
