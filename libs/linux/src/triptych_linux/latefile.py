"""A file for another process that gets its content when it is time: until then the other waits."""

from __future__ import annotations

import asyncio
import os

_CHUNK = 1 << 16


class LateFile:
    """Bytes that another process reads by a path, to their end, once.

    A pipe, opened by its name in /proc: nothing of it is on a disk, and whom the other starts has no
    descriptor of it.

    :ivar path: for every process that sees this one.
    """

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._write, False)
        self._watched = False
        self.path = f"/proc/{os.getpid()}/fd/{self._read}"

    def give(self) -> None:
        """Let it be read from now on. Once, and in the event loop."""
        self._ready()
        if self._write >= 0:  # more than a pipe holds
            self._watched = True
            asyncio.get_running_loop().add_writer(self._write, self._ready)

    def close(self) -> None:
        """For when the other has read it, or has ended. Repeatable."""
        self._close_write()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def _ready(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._write, self._left[:_CHUNK]) :]
        except BlockingIOError:
            return
        self._close_write()

    def _close_write(self) -> None:
        if self._watched:
            self._watched = False
            asyncio.get_running_loop().remove_writer(self._write)
        if self._write >= 0:
            os.close(self._write)
            self._write = -1
