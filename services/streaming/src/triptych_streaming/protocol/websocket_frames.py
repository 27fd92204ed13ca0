"""A client's WebSocket frames, taken apart as their bytes arrive (RFC 6455 section 5.2).

Nothing is kept of what a message carries: its pieces are handed on as they come, however long the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from websockets.frames import CloseCode, Opcode

from triptych_streaming.protocol.channels import Buffer

try:
    from websockets.speedups import apply_mask
except ImportError:  # a machine without wheels
    from websockets.utils import apply_mask

_SHORT = 2
_MASK = 4
_EXTENDED = {126: 2, 127: 8}
_CONTROL = 0x08
_OPCODES = frozenset(Opcode)
_LONGEST_CONTROL = 125


class FrameFault(ValueError):
    """No frame of a client; `code` is for the close frame."""

    def __init__(self, message: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class MessagePiece:
    """A part of a message.

    :param first: it begins a message.
    :param last: it ends one.
    """

    data: bytes
    first: bool
    last: bool


class FrameReader:
    """Cuts a client's bytes.

    :param limit: bytes of the largest frame taken; messages in several frames may be of any size.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = bytearray()
        self._left: int | None = None
        """Of the payload; None until the head is whole."""
        self._mask = b""
        self._control = bytearray()
        self._in_message = False
        self._first = False

    def feed(self, data: Buffer) -> Iterator[MessagePiece | bytes]:
        """Pieces of messages, unmasked; and control frames, whole and as they came.

        :raises FrameFault: the connection cannot go on.
        """
        view = memoryview(data)
        while True:
            if self._left is None:
                view = self._take_head(view)
            if self._left is None or (self._left and not view):
                return
            payload, view = view[: self._left], view[self._left :]
            self._left -= len(payload)
            if not self._head[0] & _CONTROL:
                yield self._piece(payload)
            else:
                self._control += payload
                if not self._left:
                    yield bytes(self._head + self._control)
            if not self._left:
                self._end()

    def _take_head(self, view: memoryview) -> memoryview:
        """Take what belongs to the head; gives the rest."""
        while (missing := self._head_size() - len(self._head)) and view:
            self._head += view[:missing]
            view = view[missing:]
        if not missing:
            self._begin()
        return view

    def _head_size(self) -> int:
        if len(self._head) < _SHORT:
            return _SHORT
        self._check(*self._head[:_SHORT])
        return _SHORT + _EXTENDED.get(self._head[1] & 0x7F, 0) + _MASK

    def _check(self, first: int, second: int) -> None:
        opcode, final = first & 0x0F, first & 0x80
        if first & 0x70:
            raise FrameFault("reserved bits are set")
        if opcode not in _OPCODES:
            raise FrameFault(f"there is no opcode {opcode}")
        if not second & 0x80:
            raise FrameFault("a frame is not masked")
        if opcode & _CONTROL:
            if not final or second & 0x7F > _LONGEST_CONTROL:
                raise FrameFault("a control frame is in parts or too long")
        elif (opcode == Opcode.CONT) != self._in_message:
            raise FrameFault("a message begins in another" if self._in_message else "nothing is continued")

    def _begin(self) -> None:
        head, length = self._head, self._head[1] & 0x7F
        if length in _EXTENDED:
            length = int.from_bytes(head[_SHORT:-_MASK], "big")
        if length > self._limit:
            raise FrameFault(
                f"a frame of {length} bytes, {self._limit} are taken", CloseCode.MESSAGE_TOO_BIG
            )
        self._left, self._mask = length, bytes(head[-_MASK:])
        if head[0] & 0x0F in (Opcode.TEXT, Opcode.BINARY):
            self._in_message = self._first = True

    def _piece(self, payload: memoryview) -> MessagePiece:
        data = apply_mask(payload, self._mask)
        turn = len(payload) % _MASK
        self._mask = self._mask[turn:] + self._mask[:turn]
        first, self._first = self._first, False
        return MessagePiece(data, first, last=bool(self._head[0] & 0x80) and not self._left)

    def _end(self) -> None:
        if not self._head[0] & _CONTROL and self._head[0] & 0x80:
            self._in_message = False
        self._left = None
        self._head.clear()
        self._control.clear()
