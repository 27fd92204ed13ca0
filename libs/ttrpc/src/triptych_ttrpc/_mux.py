"""NRI's multiplexer: frames of several connections on one stream, each after its number and length."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from triptych_ttrpc._frames import HEAD_SIZE, MAX_MESSAGE
from triptych_ttrpc.errors import ProtocolError

_HEAD = struct.Struct(">II")
MAX_FRAME = HEAD_SIZE + MAX_MESSAGE
"""Bytes after a frame's head: a whole message has room."""

FIRST_FRAME = 4096
"""Bytes of a message that its first frame may have.

The peers are written in Go. There one read takes one frame, and fails for good if its buffer is smaller. A
message's head is read through a buffer of 4096 bytes; what lacks after that is read straight to its place,
which has room for exactly that, or through the buffer again. So a message is one frame of up to 4096 bytes,
or one of 4096 and one of all the rest; Go's own buffered writer cuts it so.
"""


def frames(connection_id: int, message: bytes) -> bytes:
    """The one or two frames of a whole message."""
    first, rest = message[:FIRST_FRAME], message[FIRST_FRAME:]
    data = _HEAD.pack(connection_id, len(first)) + first
    return data + _HEAD.pack(connection_id, len(rest)) + rest if rest else data


class FrameReader:
    """Cuts the stream into pieces of its connections; what is kept is at most a frame's head."""

    __slots__ = ("_connection_id", "_head", "_left")

    def __init__(self) -> None:
        self._head = bytearray()
        self._connection_id = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """Yield (connection, some of its bytes) as they come; large frames come in pieces.

        :raises ProtocolError: a frame that says it is above `MAX_FRAME`; nothing after it is understood.
        """
        view = memoryview(data)
        while view:
            if self._left:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                yield self._connection_id, piece
                continue
            lacking = _HEAD.size - len(self._head)
            self._head += view[:lacking]
            view = view[lacking:]
            if len(self._head) == _HEAD.size:
                self._connection_id, self._left = _HEAD.unpack(self._head)
                self._head.clear()
                if self._left > MAX_FRAME:
                    raise ProtocolError(f"a frame of {self._left} bytes; the limit is {MAX_FRAME}")
