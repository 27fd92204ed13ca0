"""Header blocks: name/value pairs, and the one zlib stream per direction that carries them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from triptych_spdy._dictionary import DICTIONARY
from triptych_spdy.errors import InvalidHeaders, ProtocolError

HeaderValue = tuple[bytes, bytes]
Headers = tuple[HeaderValue, ...]
"""Pairs in wire order; a header with several values appears once for each."""

_U32 = struct.Struct(">I")

# A window of 2 KiB still holds the dictionary, and costs 10 KiB of memory where zlib's default costs 256.
_WINDOW_BITS = 11
_MEMORY_LEVEL = 2


def find_header(headers: Iterable[HeaderValue], name: bytes) -> bytes | None:
    """The first value of header `name` (lower case), or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def encode_block(headers: Iterable[HeaderValue]) -> bytes:
    """Lay out a block: names in lower case, values of equal names joined by NUL.

    :raises ValueError: an empty name, or a NUL inside a value.
    """
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        if not name or b"\0" in value:
            raise ValueError(f"header {name!r} cannot be sent: empty name, or NUL in its value")
        key = name.lower()
        joined[key] = joined[key] + b"\0" + value if key in joined else value
    parts = [_U32.pack(len(joined))]
    for key, value in joined.items():
        parts += (_U32.pack(len(key)), key, _U32.pack(len(value)), value)
    return b"".join(parts)


def decode_block(block: bytes, max_headers: int) -> Headers:
    """Read a block.

    :raises ProtocolError: truncated, trailing bytes, or more than `max_headers`.
    :raises InvalidHeaders: empty, upper-case or repeated names, or empty values among several.
    """
    if len(block) < 4:
        raise ProtocolError("header block of less than 4 bytes")
    (count,) = _U32.unpack_from(block)
    if count > max_headers:
        raise ProtocolError(f"{count} headers, {max_headers} are allowed")
    offset = 4
    pairs: list[HeaderValue] = []
    names: set[bytes] = set()
    fault = ""
    for _ in range(count):
        name, offset = _string(block, offset)
        value, offset = _string(block, offset)
        if not name or name != name.lower():
            fault = fault or f"header name {name[:64]!r} is empty or not in lower case"
        elif name in names:
            fault = fault or f"header {name[:64]!r} twice"
        names.add(name)
        values = value.split(b"\0")
        if len(values) > 1 and b"" in values:
            fault = fault or f"header {name[:64]!r} has an empty value among several"
        if len(pairs) + len(values) > max_headers:
            raise ProtocolError(f"more than {max_headers} header values")
        pairs.extend((name, each) for each in values)
    if offset != len(block):
        raise ProtocolError(f"{len(block) - offset} bytes after the last header")
    if fault:
        raise InvalidHeaders(fault)
    return tuple(pairs)


def _string(block: bytes, offset: int) -> tuple[bytes, int]:
    start = offset + 4
    if start > len(block):
        raise ProtocolError("header block ends inside a length")
    end = start + _U32.unpack_from(block, offset)[0]
    if end > len(block):
        raise ProtocolError("header block ends inside a name or value")
    return block[start:end], end


class HeaderCompressor:
    """The sending direction. Blocks must go out in the order they were compressed."""

    __slots__ = ("_zlib",)

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(level=6, wbits=_WINDOW_BITS, memLevel=_MEMORY_LEVEL, zdict=DICTIONARY)

    def compress(self, block: bytes) -> bytes:
        """Compress one block up to a sync flush, so that the peer can read all of it."""
        return self._zlib.compress(block) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class HeaderDecompressor:
    """The receiving direction. Every block must pass, also those of streams that are refused."""

    __slots__ = ("_limit", "_zlib")

    def __init__(self, limit: int) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)
        self._limit = limit

    def decompress(self, data: bytes) -> bytes:
        """Inflate one block.

        :raises ProtocolError: not zlib, not with the dictionary, or more than the limit when inflated.
        """
        if self._zlib.eof:
            raise ProtocolError("header block after the end of the zlib stream")
        try:
            block = self._zlib.decompress(data, self._limit + 1)
        except zlib.error as error:
            raise ProtocolError(f"header block does not inflate: {error}") from error
        if len(block) > self._limit:
            raise ProtocolError(f"header block inflates to more than {self._limit} bytes")
        if self._zlib.unused_data:
            raise ProtocolError("bytes after the end of the zlib stream")
        return block
