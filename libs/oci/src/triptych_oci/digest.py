"""Content digests (OCI image spec, descriptor.md#digests)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Self

from triptych_oci.errors import InvalidDigest

if TYPE_CHECKING:
    from hashlib import _Hash

_LENGTHS: Final = {"sha256": 64, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")


class Digest(str):
    """`algorithm:hex`, validated; a plain string to everything that wants one.

    Safe as a path component below `algorithm/` because nothing but hex digits passes.

    :raises InvalidDigest: when the text is no digest of a supported algorithm (sha256, sha512).
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if type(text) is cls:
            return text
        algorithm, colon, encoded = text.partition(":")
        length = _LENGTHS.get(algorithm)
        shown = text if len(text) <= 160 else f"{text[:160]}..."
        if not colon:
            raise InvalidDigest(f"invalid digest {shown!r}: it is not algorithm:hex")
        if length is None:
            known = ", ".join(_LENGTHS)
            raise InvalidDigest(f"invalid digest {shown!r}: algorithm is not one of {known}")
        if len(encoded) != length or _HEX.fullmatch(encoded) is None:
            raise InvalidDigest(f"invalid digest {shown!r}: {algorithm} takes {length} digits of 0-9a-f")
        return super().__new__(cls, text)

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The encoded part."""
        return self.partition(":")[2]

    def hasher(self) -> _Hash:
        """A fresh hash object of its algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def matches(self, data: bytes | memoryview) -> bool:
        """Whether the data has this digest."""
        hasher = self.hasher()
        hasher.update(data)
        return hasher.hexdigest() == self.hex

    @classmethod
    def of(cls, data: bytes | memoryview, algorithm: str = "sha256") -> Self:
        """The digest of data."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()}")

    @classmethod
    def finish(cls, hasher: _Hash) -> Self:
        """The digest that a hash object holds."""
        return cls(f"{hasher.name}:{hasher.hexdigest()}")


def chain_id(diff_ids: Iterable[str]) -> Digest:
    """The ID of a stack of layers (OCI image spec, config.md#layer-chainid).

    :param diff_ids: digests of the uncompressed layers, lowest first; at least one.
    :raises InvalidDigest: when there is none, or one is malformed.
    """
    chain: Digest | None = None
    for item in diff_ids:
        diff = Digest(item)
        chain = diff if chain is None else Digest.of(f"{chain} {diff}".encode())
    if chain is None:
        raise InvalidDigest("an image without layers has no chain ID")
    return chain


def chain_ids(diff_ids: Iterable[str]) -> list[Digest]:
    """The chain ID of every prefix of the stack, lowest first."""
    chains: list[Digest] = []
    for item in diff_ids:
        diff = Digest(item)
        chains.append(Digest.of(f"{chains[-1]} {diff}".encode()) if chains else diff)
    return chains
