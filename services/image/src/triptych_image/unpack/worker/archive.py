"""A tar archive as a stream of entries, each with its payload."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from triptych_image.unpack.worker import header
from triptych_image.unpack.worker.errors import limit, malformed, show
from triptych_image.unpack.worker.header import BLOCK, ZERO_BLOCK, Entry
from triptych_image.unpack.worker.limits import (
    LONG_NAME_MAX,
    PAX_MAX,
    SPARSE_SEGMENTS_MAX,
    TRAILER_MAX,
    Limits,
)
from triptych_image.unpack.worker.tape import NoTape, TapeWriter

_HEADER_ONLY = b"123456"


class Archive:
    """Reads entries from chunks; hashes all of them, and writes the tape.

    :param on_chunk: called with the bytes and entries so far, for limits and progress of the caller.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        tape: TapeWriter | NoTape,
        limits: Limits,
        on_chunk: Callable[[int, int], None] | None = None,
    ) -> None:
        self._chunks = chunks
        self._tape = tape
        self._limits = limits
        self._on_chunk = on_chunk
        self._hash = hashlib.sha256()
        self._buffer = b""
        self._position = 0
        self._padding = 0
        self._extended = 0
        self.total = 0
        self.entries = 0

    def diff_id(self) -> str:
        """Digest of everything read; of the whole archive once `entries` ended."""
        return "sha256:" + self._hash.hexdigest()

    # -- bytes

    def _more(self) -> bool:
        chunk = next(self._chunks, b"")
        while chunk == b"":
            following = next(self._chunks, None)
            if following is None:
                return False
            chunk = following
        self._hash.update(chunk)
        self.total += len(chunk)
        if self._limits.bytes and self.total > self._limits.bytes:
            raise limit(f"the layer has more than {self._limits.bytes} bytes unpacked")
        if self._on_chunk is not None:
            self._on_chunk(self.total, self.entries)
        self._buffer = chunk
        self._position = 0
        return True

    def _take(self, size: int) -> bytes:
        """Exactly `size` bytes that go to the tape as they are; shorter at the end of the stream."""
        start = self._position
        data = self._buffer[start : start + size]
        self._position = start + len(data)
        if len(data) < size:
            parts = [data]
            missing = size - len(data)
            while missing and self._more():
                part = self._buffer[:missing]
                self._position = len(part)
                missing -= len(part)
                parts.append(part)
            data = b"".join(parts)
        self._tape.literal(data)
        return data

    def _need(self, size: int) -> bytes:
        data = self._take(size)
        if len(data) < size:
            raise malformed("the archive ends too early")
        return data

    def payload(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes of the entry's payload, which the caller has noted on the tape."""
        while size:
            if self._position >= len(self._buffer) and not self._more():
                raise malformed("the archive ends too early")
            start = self._position
            part = memoryview(self._buffer)[start : start + size]
            self._position = start + len(part)
            size -= len(part)
            yield part

    def small(self, size: int) -> bytes | None:
        """The payload in one piece if it is in memory already, else None."""
        start = self._position
        if len(self._buffer) - start < size:
            return None
        self._position = start + size
        return self._buffer[start : start + size]

    # -- entries

    def members(self) -> Iterator[Entry]:
        """Every entry in order. The caller takes the whole payload of one before it asks for the next.

        :raises Refused: for whatever is wrong with the archive.
        """
        pax: list[tuple[bytes, bytes]] = []
        long_name = long_link = b""
        while True:
            if self._padding:
                self._need(self._padding)
                self._padding = 0
            block = self._take(BLOCK)
            if len(block) < BLOCK:
                if block or pax or long_name:
                    raise malformed("the archive ends too early")
                return
            if block == ZERO_BLOCK:
                break
            self._count()
            entry = header.parse(block)
            kind = entry.kind
            if kind in b"xLKg":
                data = self._extension(entry)
                if kind == b"x":
                    pax = header.parse_pax(data)
                elif kind == b"L":
                    long_name = data.rstrip(b"\0")
                elif kind == b"K":
                    long_link = data.rstrip(b"\0")
                continue
            sparse = header.apply_pax(entry, pax) if pax else {}
            # Of several names of one entry all readers must take the same: these, as Go's archive/tar.
            entry.name = long_name or entry.name
            entry.link = long_link or entry.link
            self._finish(entry, sparse, block)
            pax, long_name, long_link = [], b"", b""
            yield entry
        self._trailer(pax, long_name)

    def _count(self) -> None:
        self.entries += 1
        if self._limits.entries and self.entries > self._limits.entries:
            raise limit(f"the layer has more than {self._limits.entries} entries")

    def _extension(self, entry: Entry) -> bytes:
        most = PAX_MAX if entry.kind in b"xg" else LONG_NAME_MAX
        if not 0 <= entry.size <= most:
            raise limit(f"an extended header has {entry.size} bytes, more than {most}")
        self._extended += entry.size
        if self._extended > PAX_MAX + 2 * LONG_NAME_MAX:
            raise limit(f"the extended headers of one entry have {self._extended} bytes, which is too much")
        data = self._need(entry.size)
        self._padding = -entry.size % BLOCK
        return data

    def _finish(self, entry: Entry, sparse: dict[bytes, bytes], block: bytes) -> None:
        self._extended = 0
        header.check_ids(entry)
        header.settle_kind(entry)
        if entry.kind in _HEADER_ONLY and entry.kind != b"0":
            # As Go's archive/tar: the size of these is a lie of old writers, nothing follows.
            entry.size = 0
        if b"\0" in entry.name or b"\0" in entry.link:
            raise malformed(f"{show(entry.name)}: the name holds a NUL byte")
        self._padding = -entry.size % BLOCK
        if entry.kind == b"S":
            self._old_sparse(entry, block)
        elif sparse:
            self._pax_sparse(entry, sparse)

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        entry.kind = b"0"
        entry.real_size = header.number(block[483:495])
        spans = _spans(block[386:482])
        more = block[482]
        while more and len(spans) <= SPARSE_SEGMENTS_MAX:
            extra = self._need(BLOCK)
            spans += _spans(extra[:504])
            more = extra[504]
        self._set_segments(entry, spans)

    def _pax_sparse(self, entry: Entry, sparse: dict[bytes, bytes]) -> None:
        if entry.kind != b"0":
            return
        entry.name = sparse.get(b"name", entry.name)
        size = sparse.get(b"realsize") or sparse.get(b"size") or b"0"
        entry.real_size = header.decimal(size)
        if sparse.get(b"major") == b"1":
            self._set_segments(entry, self._sparse_map(entry))
            return
        if b"map" not in sparse:
            entry.segments = None
            if entry.real_size != entry.size:
                raise malformed(f"{show(entry.name)}: a sparse file without a map")
            return
        numbers = [header.decimal(part) for part in sparse[b"map"].split(b",") if part]
        if len(numbers) % 2:
            raise malformed(f"{show(entry.name)}: the map of a sparse file is broken")
        self._set_segments(entry, list(zip(numbers[::2], numbers[1::2], strict=True)))

    def _sparse_map(self, entry: Entry) -> list[tuple[int, int]]:
        """Format 1.0: the map stands before the data, as lines in whole blocks."""
        text = bytearray()
        lines = 0
        wanted = 1
        while lines < wanted:
            if len(text) + BLOCK > entry.size or len(text) > SPARSE_SEGMENTS_MAX * 24:
                raise malformed(f"{show(entry.name)}: the map of a sparse file is broken")
            block = self._need(BLOCK)
            if wanted == 1 and b"\n" in block:
                first = bytes(text + block).partition(b"\n")[0]
                wanted = 1 + 2 * min(header.decimal(first), SPARSE_SEGMENTS_MAX + 1)
            text += block
            lines += block.count(b"\n")
        entry.size -= len(text)
        numbers = [header.decimal(line) for line in bytes(text).split(b"\n")[1:wanted]]
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def _set_segments(self, entry: Entry, spans: list[tuple[int, int]]) -> None:
        if len(spans) > SPARSE_SEGMENTS_MAX:
            raise limit(f"{show(entry.name)}: a sparse file has more than {SPARSE_SEGMENTS_MAX} segments")
        end = total = 0
        for offset, length in spans:
            if offset < end or length < 0:
                raise malformed(f"{show(entry.name)}: the map of a sparse file is out of order")
            end = offset + length
            total += length
        if end > entry.real_size or total != entry.size:
            raise malformed(f"{show(entry.name)}: the map of a sparse file does not fit its size")
        entry.segments = [span for span in spans if span[1]]

    def _trailer(self, pax: list[tuple[bytes, bytes]], long_name: bytes) -> None:
        """Whatever follows the end mark belongs to the diffID; writers pad to 10 KiB, some to more."""
        if pax or long_name:
            raise malformed("the archive ends behind an extended header")
        read = 0
        while data := self._take(1 << 16):
            read += len(data)
            if read > TRAILER_MAX:
                raise limit(f"more than {TRAILER_MAX} bytes follow the end of the archive")


def _spans(field: bytes) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for start in range(0, len(field), 24):
        pair = field[start : start + 24]
        if not pair.strip(b"\0"):
            break
        spans.append((header.number(pair[:12]), header.number(pair[12:])))
    return spans
