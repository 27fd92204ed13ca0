"""Where the bytes of layers come from: a registry, or an archive on this node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from triptych_oci import Descriptor

from triptych_image.registry import Repository

Count = Callable[[int], None]


class BlobSource(Protocol):
    """Gives blobs. Every method may run for several blobs at once."""

    @property
    def reference(self) -> str:
        """What the blobs can be fetched again by; "" when they cannot."""

    async def copy(self, descriptor: Descriptor, sink: int, offset: int, count: Count) -> str:
        """Write a blob from an offset into a pipe; returns who served it.

        :raises SinkClosed: when the pipe's reader went away.
        """

    async def fetch(self, descriptor: Descriptor, count: Count) -> bytes:
        """A small blob whole, size and digest verified."""

    def read(self, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        """A blob's bytes from an offset, in chunks."""

    def distrust(self, descriptor: Descriptor) -> bool:
        """The blob had another digest; returns whether somebody else may have the right one."""


class RegistrySource:
    """A repository of a registry."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.reference = str(repository.reference)

    async def copy(self, descriptor: Descriptor, sink: int, offset: int, count: Count) -> str:
        stats = await self._repository.copy_blob_to_fd(descriptor, sink, offset=offset, progress=count)
        return stats.host

    async def fetch(self, descriptor: Descriptor, count: Count) -> bytes:
        return await self._repository.fetch_blob(descriptor, limit=descriptor.size, progress=count)

    def read(self, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        return self._repository.open_blob(descriptor, offset=offset)

    def distrust(self, descriptor: Descriptor) -> bool:
        return self._repository.distrust(descriptor)
