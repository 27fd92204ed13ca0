"""ttrpc's messages: a head of ten bytes (length, stream, type, flags) and the payload."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from triptych_ttrpc.errors import ProtocolError, TooLarge

_HEAD = struct.Struct(">IIBB")
HEAD_SIZE = _HEAD.size
MAX_MESSAGE = 4 << 20
"""Bytes that a payload may have, ttrpc's envelope included."""


class MessageType(enum.IntEnum):
    """Others may come with later versions of ttrpc."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


class Flag(enum.IntFlag):
    """Flags of a request; a unary one has none."""

    REMOTE_CLOSED = 1
    REMOTE_OPEN = 2


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `type` may be an unknown number."""

    stream_id: int
    type: int
    flags: int
    payload: bytes


def message_bytes(stream_id: int, kind: MessageType, payload: bytes) -> bytes:
    """A whole message.

    :raises TooLarge: a payload above `MAX_MESSAGE`.
    """
    if len(payload) > MAX_MESSAGE:
        raise TooLarge(len(payload), MAX_MESSAGE)
    return _HEAD.pack(len(payload), stream_id, kind, 0) + payload


class MessageReader:
    """Cuts a byte stream into messages; at most one that is not whole is kept."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[Message]:
        """Yield what `data` completes.

        :raises ProtocolError: a message that says it is above `MAX_MESSAGE`; nothing after it is understood.
        """
        partial = self._partial
        partial += data
        while len(partial) >= HEAD_SIZE:
            length, stream_id, kind, flags = _HEAD.unpack_from(partial)
            if length > MAX_MESSAGE:
                raise ProtocolError(
                    f"a message of {length} bytes on stream {stream_id}; the limit is {MAX_MESSAGE}"
                )
            end = HEAD_SIZE + length
            if len(partial) < end:
                return
            payload = bytes(partial[HEAD_SIZE:end])
            del partial[:end]
            yield Message(stream_id, kind, flags, payload)
