"""Claims on what is about to be referred to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, Self

from triptych_oci import Digest


class Claims(Protocol):
    """What a store does for `Hold`; each runs in the database's thread."""

    async def claim_layers(self, keys: list[str]) -> set[str]: ...

    async def write_blobs(self, claimed: list[Digest], blobs: Mapping[Digest, bytes]) -> None: ...

    def release(self, layers: list[str], blobs: list[Digest]) -> None: ...


class Hold:
    """Claims on layers and blobs; use as a context manager.

    A claim is taken in the database's thread, so that no removal runs between looking and claiming.
    """

    def __init__(self, store: Claims) -> None:
        self._store = store
        self._layers: list[str] = []
        self._blobs: list[Digest] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.release(self._layers, self._blobs)
        self._layers, self._blobs = [], []

    async def layers(self, keys: Iterable[str]) -> set[str]:
        """Claim layers, whether they are there or come later; returns those there."""
        wanted = list(keys)
        self._layers += wanted
        return await self._store.claim_layers(wanted)

    async def blobs(self, blobs: Mapping[Digest, bytes], expected: Iterable[Digest] = ()) -> None:
        """Write small blobs and claim them; they stay if an image that names them is committed.

        :param expected: claimed too; somebody else writes them.
        :raises DiskFull: when the disk does not take them.
        """
        for digest, data in blobs.items():
            if not digest.matches(data):
                raise ValueError(f"the bytes of blob {digest} have another digest")
        claimed = [*blobs, *expected]
        self._blobs += claimed
        await self._store.write_blobs(claimed, blobs)
