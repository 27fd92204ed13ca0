"""Where the bytes of a blob go."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import io
import os
import stat
from typing import Final, Protocol

from triptych_image.registry.errors import SinkClosed
from triptych_image.registry.http import Response
from triptych_image.registry.http.stream import write_all

_PIPE_BYTES: Final = 1 << 20
_BUFFER: Final = 256 << 10
_F_SETPIPE_SZ: Final = 1031


class Sink(Protocol):
    """Takes bytes in order."""

    async def take(self, response: Response, most: int) -> int:
        """Move some of a body on, at least a byte; 0 at its end."""

    async def put(self, data: memoryview) -> None:
        """Take bytes that are in memory."""


class DescriptorSink:
    """A pipe or socket.

    :ivar spliced: bytes that went there inside the kernel.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        self._buffer: memoryview | None = None
        self.spliced = 0
        os.set_blocking(fd, False)
        if self._pipe:
            # Above the pipe limits of the user it stays as it is, which costs wake-ups only.
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)

    async def take(self, response: Response, most: int) -> int:
        try:
            if self._pipe and response.spliceable:
                count = await response.splice_some(self._fd, most)
                self.spliced += count
                return count
            if self._buffer is None:
                self._buffer = memoryview(bytearray(_BUFFER))
            count = await response.fill(self._buffer[:most])
            await write_all(self._fd, self._buffer[:count])
        except BrokenPipeError:
            raise SinkClosed("the reader of the blob went away") from None
        return count

    async def put(self, data: memoryview) -> None:
        try:
            await write_all(self._fd, data)
        except BrokenPipeError:
            raise SinkClosed("the reader of the blob went away") from None


class QueueSink:
    """Hands chunks to an iterator; holds a few of them."""

    _MOST: Final = 2

    def __init__(self) -> None:
        self._chunks: collections.deque[bytes] = collections.deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._buffer = memoryview(bytearray(_BUFFER))

    async def take(self, response: Response, most: int) -> int:
        count = await response.fill(self._buffer[:most])
        if count:
            await self.put(self._buffer[:count])
        return count

    async def put(self, data: memoryview) -> None:
        while data:
            while len(self._chunks) >= self._MOST:
                self._changed.clear()
                await self._changed.wait()
            self._chunks.append(bytes(data[:_BUFFER]))
            self._changed.set()
            data = data[_BUFFER:]

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._changed.set()

    async def get(self) -> bytes:
        """The next chunk; b"" at the end."""
        while not self._chunks:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._changed.set()
        return chunk


class BufferSink:
    """Memory of a known size.

    A BytesIO that was made of zeros takes pages only as they are filled, and gives its bytes without a copy.
    """

    def __init__(self, size: int) -> None:
        self._memory = io.BytesIO(bytes(size))
        self.view = self._memory.getbuffer()
        self._filled = 0

    def finish(self) -> bytes:
        """All of it, as bytes; nothing more is taken."""
        self.view.release()
        return self._memory.getvalue()

    async def take(self, response: Response, most: int) -> int:
        count = await response.fill(self.view[self._filled : self._filled + most])
        self._filled += count
        return count

    async def put(self, data: memoryview) -> None:
        self.view[self._filled : self._filled + len(data)] = data
        self._filled += len(data)
