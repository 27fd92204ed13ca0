"""Cuts a byte stream into frames: control frames whole, DATA payload in views as it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from triptych_spdy._constants import CONTROL_BIT, FLAG_FIN, HEAD_SIZE, VERSION
from triptych_spdy._frames import parse_head
from triptych_spdy.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """A whole control frame; `kind` may be an unknown number."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class DataPiece:
    """Some payload of a DATA frame; `fin` only on the last piece of a frame that carries it."""

    stream_id: int
    data: memoryview
    fin: bool


class FrameReader:
    """State of the cut between two feeds: at most one partial head or control frame is kept."""

    __slots__ = ("_data_fin", "_data_left", "_data_stream", "_max_control", "_partial")

    def __init__(self, max_control: int) -> None:
        self._max_control = max_control
        self._partial = bytearray()
        self._data_left = 0
        self._data_stream = 0
        self._data_fin = False

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[ControlFrame | DataPiece]:
        """Yield what `data` completes.

        :raises ProtocolError: a control frame of another version or above the size limit.
        """
        view = memoryview(data)
        end = len(view)
        offset = 0
        while True:
            if self._data_left:
                if offset == end:
                    return
                size = min(self._data_left, end - offset)
                self._data_left -= size
                yield DataPiece(
                    self._data_stream,
                    view[offset : offset + size],
                    self._data_fin and not self._data_left,
                )
                offset += size
                continue
            if self._partial:
                offset = self._fill(view, offset, HEAD_SIZE)
                if len(self._partial) < HEAD_SIZE:
                    return
                word, flags, length = parse_head(self._partial, 0)
                if word & CONTROL_BIT:
                    self._check(word, length)
                    offset = self._fill(view, offset, HEAD_SIZE + length)
                    if len(self._partial) < HEAD_SIZE + length:
                        return
                    body = bytes(self._partial[HEAD_SIZE:])
                    self._partial.clear()
                    yield ControlFrame(word & 0xFFFF, flags, body)
                    continue
                self._partial.clear()
            else:
                if end - offset < HEAD_SIZE:
                    self._partial += view[offset:]
                    return
                word, flags, length = parse_head(view, offset)
                if word & CONTROL_BIT:
                    self._check(word, length)
                    stop = offset + HEAD_SIZE + length
                    if stop > end:
                        self._partial += view[offset:]
                        return
                    yield ControlFrame(word & 0xFFFF, flags, bytes(view[offset + HEAD_SIZE : stop]))
                    offset = stop
                    continue
                offset += HEAD_SIZE
            self._data_stream, self._data_left, self._data_fin = word, length, bool(flags & FLAG_FIN)
            if not length:
                yield DataPiece(word, view[0:0], self._data_fin)

    def _fill(self, view: memoryview, offset: int, size: int) -> int:
        take = max(0, min(size - len(self._partial), len(view) - offset))
        self._partial += view[offset : offset + take]
        return offset + take

    def _check(self, word: int, length: int) -> None:
        if (word >> 16) & 0x7FFF != VERSION:
            raise ProtocolError(f"a control frame of SPDY version {(word >> 16) & 0x7FFF}")
        if length > self._max_control:
            raise ProtocolError(f"a control frame of {length} bytes; {self._max_control} are allowed")
