"""Where a layer lies while it is unpacked."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from triptych_linux.process import shielded

from triptych_image.store import Store, disk_error

_OPEN_SECONDS: Final = 30.0


class Scratch:
    """Directory, tape and spool of a layer on its way.

    :ivar spool_fd: a file that keeps the packed bytes, to go on from or to be kept; None for none.
    :ivar spooled: bytes that it had already.
    :ivar taken: set when the store took directory and tape over, so that nothing is left to drop.
    """

    def __init__(self, store: Store) -> None:
        self.tree = store.paths.scratch()
        self.tape = self.tree.with_suffix(".tape")
        self.tape_fd = -1
        self.spool_fd: int | None = None
        self.spooled = 0
        self.taken = False

    def open(self, size: int, spool: Path | None) -> None:
        """Make it. Blocking; where it fails, what is there already is for `close` and the store's `drop`."""
        os.mkdir(self.tree, 0o755)
        os.chmod(self.tree, 0o755)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self.tape_fd = os.open(self.tape, flags | os.O_EXCL, 0o600)
        if spool is not None:
            self._open_spool(spool, flags, size)

    def _open_spool(self, spool: Path, flags: int, size: int) -> None:
        self.spool_fd = os.open(spool, flags | os.O_APPEND, 0o600)
        self.spooled = os.fstat(self.spool_fd).st_size
        if self.spooled > size:
            os.ftruncate(self.spool_fd, 0)
            self.spooled = 0

    def close(self) -> None:
        """Close the files; they stay."""
        for fd in (self.tape_fd, self.spool_fd):
            if fd is not None and fd >= 0:
                os.close(fd)


@contextlib.asynccontextmanager
async def scratch(store: Store, size: int, spool: Path | None) -> AsyncIterator[Scratch]:
    """A place to unpack into, which is dropped unless the store took it over.

    :param size: of the packed layer.
    :param spool: keep the packed bytes in this file, and begin with what an earlier attempt left of them.
    :raises DiskFull: when it cannot be made.
    """
    async with contextlib.AsyncExitStack() as stack:
        if spool is not None:
            await stack.enter_async_context(store.hold_partial(spool))
        place = Scratch(store)
        opening = asyncio.get_running_loop().run_in_executor(None, place.open, size, spool)
        try:
            await asyncio.wait([opening])
            try:
                opening.result()
            except OSError as error:
                raise disk_error(error, "prepare to unpack") from error
            yield place
        finally:
            if not opening.done():
                # The caller was cancelled; only at its end is known what the thread has opened.
                await shielded(_ended(opening), _OPEN_SECONDS)
            place.close()
            if not place.taken:
                await store.drop(place.tree, place.tape)


async def _ended(opening: asyncio.Future[None]) -> None:
    await asyncio.wait([opening])
    if not opening.cancelled():
        opening.exception()
