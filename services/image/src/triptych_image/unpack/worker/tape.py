"""The tape of a layer: its archive without the contents of files.

Archive headers and padding are kept byte for byte, and instead of a file's contents stands where they were
written. So the archive can be played back from the unpacked directory bit by bit, which proves the layer
against its diffID (`verify`) and gives it to `save` and `push` though no archive is stored. A tape is
about a hundredth of the layer.

Format: a zlib stream of records, little endian: `L` u32 length, bytes; `F` u16 length of path, path,
u64 offset, u64 length.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from triptych_image.unpack.worker.errors import SYSTEM, Refused, malformed, refused_by_kernel
from triptych_image.unpack.worker.source import OUT_CHUNK

_LITERAL = struct.Struct("<cI")
_FILE = struct.Struct("<cH")
_SPAN = struct.Struct("<QQ")
_FLUSH = 1 << 17


class TapeWriter:
    """Writes a tape to a descriptor."""

    __slots__ = ("_compressor", "_fd", "_literal", "_records", "complete", "written")

    def __init__(self, fd: int) -> None:
        from isal import isal_zlib

        self._fd = fd
        self._compressor = isal_zlib.compressobj(1)
        self._records = bytearray()
        self._literal = bytearray()
        self.complete = True
        """False once the archive replaced a file that it had written: that content is nowhere."""
        self.written = 0

    def literal(self, data: bytes | memoryview) -> None:
        """Bytes of the archive itself."""
        self._literal += data
        if len(self._literal) >= _FLUSH:
            self._end_literal()

    def file(self, path: bytes, offset: int, length: int) -> None:
        """Here the archive has `length` bytes that are in the file `path` from `offset` on."""
        self._end_literal()
        self._records += _FILE.pack(b"F", len(path)) + path + _SPAN.pack(offset, length)

    def _end_literal(self) -> None:
        if self._literal:
            self._records += _LITERAL.pack(b"L", len(self._literal))
            self._records += self._literal
            self._literal.clear()
        if len(self._records) >= _FLUSH:
            self._write(self._compressor.compress(self._records))
            self._records.clear()

    def close(self) -> None:
        """Write out what is left; the descriptor stays open."""
        self._end_literal()
        self._write(self._compressor.compress(self._records) + self._compressor.flush())
        self._records.clear()

    def _write(self, data: bytes) -> None:
        self.written += len(data)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise refused_by_kernel(error, "write the layer's tape") from None


class NoTape:
    """Takes a tape's place where none is wanted."""

    complete = False
    written = 0

    def literal(self, data: bytes | memoryview) -> None:
        """Dropped."""

    def file(self, path: bytes, offset: int, length: int) -> None:
        """Dropped."""

    def close(self) -> None:
        """Nothing to do."""


def play(fd: int) -> Iterator[bytes]:
    """The archive that a tape describes, from the tree below the current directory.

    :raises Refused: when the tape is broken, or a file is missing or too short.
    """
    records = _Records(fd)
    while kind := records.take(1, at_end=True):
        if kind == b"L":
            yield records.take(int.from_bytes(records.take(4), "little"))
        elif kind == b"F":
            path = records.take(int.from_bytes(records.take(2), "little"))
            offset, length = _SPAN.unpack(records.take(_SPAN.size))
            yield from _contents(path, offset, length)
        else:
            raise malformed("the layer's tape is broken")


def _contents(path: bytes, offset: int, length: int) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(SYSTEM, f"{os.fsdecode(path)!r}: {error.strerror}") from None
    try:
        while length:
            chunk = os.pread(fd, min(length, OUT_CHUNK), offset)
            if not chunk:
                raise Refused(SYSTEM, f"{os.fsdecode(path)!r} is shorter than it was")
            yield chunk
            offset += len(chunk)
            length -= len(chunk)
    finally:
        os.close(fd)


class _Records:
    """Exact reads from the decompressed tape."""

    def __init__(self, fd: int) -> None:
        from isal import isal_zlib

        self._fd = fd
        self._inflater = isal_zlib.decompressobj()
        self._error = isal_zlib.error
        self._buffer = b""
        self._position = 0

    def take(self, size: int, *, at_end: bool = False) -> bytes:
        while len(self._buffer) - self._position < size:
            if not self._more():
                if at_end and self._position == len(self._buffer):
                    return b""
                raise malformed("the layer's tape ends too early")
        start = self._position
        self._position += size
        return self._buffer[start : self._position]

    def _more(self) -> bool:
        try:
            tail = self._inflater.unconsumed_tail or os.read(self._fd, OUT_CHUNK)
            data = self._inflater.decompress(tail, OUT_CHUNK) if tail else b""
        except self._error as error:  # type: ignore[misc]  # its stub has an instance
            raise malformed(f"the layer's tape is broken: {error}") from None
        self._buffer = self._buffer[self._position :] + data
        self._position = 0
        return bool(tail)
