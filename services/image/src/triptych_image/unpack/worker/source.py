"""Compressed bytes in, plain chunks of bounded size out."""

from __future__ import annotations

import os
from collections.abc import Iterator

from triptych_image.unpack.worker.errors import malformed
from triptych_image.unpack.worker.limits import ZSTD_WINDOW_MAX

IN_CHUNK = 1 << 17
OUT_CHUNK = 1 << 18
HEAD = 6
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_UNSUPPORTED = ((b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"LZIP", "lzip"), (b"\x04\x22\x4d\x18", "lz4"))


class Input:
    """A pipe or file that is read to its end; `received` counts."""

    __slots__ = ("_fd", "_head", "received")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._head = b""
        self.received = 0

    def peek(self, size: int) -> bytes:
        """The first bytes, which `read` gives again; fewer only at the end."""
        while len(self._head) < size:
            chunk = os.read(self._fd, IN_CHUNK)
            if not chunk:
                break
            self.received += len(chunk)
            self._head += chunk
        return self._head[:size]

    def read(self, size: int = IN_CHUNK) -> bytes:
        """Whatever is there, at most `size`; empty at the end."""
        if self._head:
            chunk, self._head = self._head[:size], self._head[size:]
            return chunk
        chunk = os.read(self._fd, size)
        self.received += len(chunk)
        return chunk


def is_packed(head: bytes) -> bool:
    """Whether the first `HEAD` bytes begin a packed stream, be it one that `chunks` refuses by its name."""
    return head.startswith((_GZIP, *(magic for magic, _ in _UNSUPPORTED))) or _is_zstd(head)


def _is_zstd(head: bytes) -> bool:
    return head.startswith(_ZSTD) or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F)


def chunks(source: Input) -> Iterator[bytes]:
    """Decompress by the first bytes, as both peers do: media types lie.

    :raises Refused: for a broken stream and for formats that no image uses.
    """
    head = source.peek(HEAD)
    if head.startswith(_GZIP):
        return _gunzip(source)
    if _is_zstd(head):
        return _unzstd(source)
    for magic, name in _UNSUPPORTED:
        if head.startswith(magic):
            raise malformed(f"packed with {name}, which is not supported; gzip and zstd are")
    return _plain(source)


def _plain(source: Input) -> Iterator[bytes]:
    while chunk := source.read(OUT_CHUNK):
        yield chunk


def _gunzip(source: Input) -> Iterator[bytes]:
    from isal import igzip_lib

    def member() -> igzip_lib.IgzipDecompressor:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP, hist_bits=15)

    inflater = member()
    data = source.read()
    try:
        while True:
            out = inflater.decompress(data, OUT_CHUNK)
            if out:
                yield out
            if inflater.eof:
                # More members may follow (pigz, eStargz), and zero padding.
                data = _next_member(inflater.unused_data, source)
                if not data:
                    return
                inflater = member()
                continue
            data = b""
            if inflater.needs_input:
                data = source.read()
                if not data:
                    raise malformed("the gzip stream ends too early")
    except igzip_lib.error as error:  # type: ignore[misc]  # its stub has an instance
        raise malformed(f"the gzip stream is broken: {error}") from None


def _next_member(left: bytes, source: Input) -> bytes:
    while True:
        left = left.lstrip(b"\0")
        if len(left) >= 2 or (left and left != _GZIP[:1]):
            break
        more = source.read()
        if not more:
            if left:
                raise malformed("the gzip stream is followed by garbage")
            return b""
        left += more
    if not left.startswith(_GZIP):
        raise malformed("the gzip stream is followed by garbage")
    return left


def _unzstd(source: Input) -> Iterator[bytes]:
    import zstandard

    inflater = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX)
    reader = inflater.stream_reader(source, read_size=IN_CHUNK, read_across_frames=True)  # type: ignore[arg-type]
    before = source.received
    try:
        while out := reader.read(OUT_CHUNK):
            yield out
    except zstandard.ZstdError as error:
        raise malformed(f"the zstd stream is broken: {error}") from None
    if source.received == before == 0:
        raise malformed("the zstd stream is empty")
