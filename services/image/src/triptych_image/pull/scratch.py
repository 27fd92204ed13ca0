"""Where a layer lies while it is unpacked."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from triptych_image.store import Store, disk_error


class Scratch:
    """Directory, tape and spool of a layer on its way.

    :ivar spool_fd: a file that keeps the packed bytes, to go on from or to be kept; None for none.
    :ivar spooled: bytes that it had already.
    :ivar taken: set when the store took directory and tape over, so that nothing is left to drop.
    """

    def __init__(self, store: Store, size: int, spool: Path | None) -> None:
        """Blocking."""
        self.tree = store.paths.scratch()
        self.tape = self.tree.with_suffix(".tape")
        self.spool_fd: int | None = None
        self.spooled = 0
        self.taken = False
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
            if fd is not None:
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
        try:
            made = await asyncio.to_thread(Scratch, store, size, spool)
        except OSError as error:
            raise disk_error(error, "prepare to unpack") from error
        try:
            yield made
        finally:
            made.close()
            if not made.taken:
                await store.drop(made.tree, made.tape)
