"""A blob on its way into a file that stays for the next attempt when this one breaks off."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from triptych_linux.process import shielded
from triptych_oci import Descriptor

from triptych_image.unpack.worker.output import write_all

_CHUNK = 1 << 20
_CLOSE_SECONDS = 60.0

T = TypeVar("T")


class PartialFile:
    """What has arrived of a blob.

    One thread does all there is to do to the file. It alone has the descriptor and closes it behind the last
    write, so that nobody who leaves early closes it under a write, which would go to whatever file gets the
    number next.

    :ivar size: bytes that are there.
    """

    def __init__(self, path: Path, descriptor: Descriptor, check: Callable[[], None]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._check = check
        self._hasher = descriptor.digest.hasher()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "partial")
        self._fd = -1
        self._left = False
        self.size = 0

    async def open(self) -> None:
        """Open it, and read what an earlier attempt left."""
        await self._run(self._open)

    async def write(self, chunk: bytes) -> None:
        """Add what arrived."""
        await self._run(lambda: self._write(chunk))

    def is_whole(self) -> bool:
        """Whether it is what its descriptor says."""
        digest = self._descriptor.digest
        return self.size == self._descriptor.size and self._hasher.hexdigest() == digest.hex

    async def close(self) -> None:
        """Close it when the last write has ended; a cancelled caller waits for that too."""
        self._left = True
        closing = self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

        async def closed() -> None:
            await asyncio.wrap_future(closing)

        await shielded(closed(), _CLOSE_SECONDS)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        if os.fstat(self._fd).st_size > self._descriptor.size:
            os.ftruncate(self._fd, 0)
        while not self._left and (chunk := os.pread(self._fd, _CHUNK, self.size)):
            self._hasher.update(chunk)
            self.size += len(chunk)

    def _write(self, chunk: bytes) -> None:
        self._check()
        self._hasher.update(chunk)
        write_all(self._fd, chunk)
        self.size += len(chunk)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


@contextlib.asynccontextmanager
async def partial_file(
    path: Path, descriptor: Descriptor, check: Callable[[], None]
) -> AsyncIterator[PartialFile]:
    """Go on with a file, or begin it.

    :param check: called before each write, in a thread; what it raises ends the attempt.
    """
    file = PartialFile(path, descriptor, check)
    try:
        await file.open()
        yield file
    finally:
        await file.close()
