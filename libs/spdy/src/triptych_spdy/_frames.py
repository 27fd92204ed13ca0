"""Control frames: the records and their bytes; the head of DATA frames."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from triptych_spdy._constants import CONTROL_BIT, HEAD_SIZE, MAX_LENGTH, VERSION, FrameType
from triptych_spdy.errors import ProtocolError, StateError

_HEAD = struct.Struct(">II")
_PAIR = struct.Struct(">II")
_WORD = struct.Struct(">I")
_SYN = struct.Struct(">IIBB")
_MASK31 = 0x7FFF_FFFF


@dataclass(frozen=True, slots=True)
class Setting:
    """One entry of SETTINGS; `id` is 24 bits, known ones are in `SettingId`."""

    id: int
    value: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class SynStream:
    stream_id: int
    associated: int
    priority: int
    slot: int
    block: bytes


@dataclass(frozen=True, slots=True)
class StreamBlock:
    """The body of SYN_REPLY and HEADERS."""

    stream_id: int
    block: bytes


@dataclass(frozen=True, slots=True)
class WordPair:
    """The body of RST_STREAM, GOAWAY and WINDOW_UPDATE: a stream and a number."""

    stream_id: int
    value: int


def data_head(stream_id: int, length: int, flags: int) -> bytes:
    """The eight bytes before the payload of a DATA frame.

    :raises StateError: a payload of 2^24 bytes or more.
    """
    if length > MAX_LENGTH:
        raise StateError(f"a DATA frame of {length} bytes; the limit is {MAX_LENGTH}")
    return _HEAD.pack(stream_id, (flags << 24) | length)


def control_frame(kind: FrameType, flags: int, body: bytes) -> bytes:
    """A whole control frame.

    :raises StateError: a body of 2^24 bytes or more.
    """
    if len(body) > MAX_LENGTH:
        raise StateError(f"a {kind.name} frame of {len(body)} bytes; the limit is {MAX_LENGTH}")
    return _HEAD.pack(CONTROL_BIT | (VERSION << 16) | kind, (flags << 24) | len(body)) + body


def syn_stream(frame: SynStream, flags: int) -> bytes:
    head = _SYN.pack(frame.stream_id, frame.associated, frame.priority << 5, frame.slot)
    return control_frame(FrameType.SYN_STREAM, flags, head + frame.block)


def stream_block(kind: FrameType, frame: StreamBlock, flags: int) -> bytes:
    return control_frame(kind, flags, _WORD.pack(frame.stream_id) + frame.block)


def word_pair(kind: FrameType, frame: WordPair) -> bytes:
    return control_frame(kind, 0, _PAIR.pack(frame.stream_id, frame.value))


def ping(ping_id: int) -> bytes:
    return control_frame(FrameType.PING, 0, _WORD.pack(ping_id))


def settings(entries: Sequence[Setting], flags: int) -> bytes:
    body = b"".join(_PAIR.pack((entry.flags << 24) | entry.id, entry.value) for entry in entries)
    return control_frame(FrameType.SETTINGS, flags, _WORD.pack(len(entries)) + body)


def parse_head(head: bytes | bytearray | memoryview, offset: int) -> tuple[int, int, int]:
    """Split a frame head into (first word, flags, length); the control bit is the top bit of the word."""
    word, rest = _HEAD.unpack_from(head, offset)
    return word, rest >> 24, rest & MAX_LENGTH


def parse_syn_stream(body: bytes) -> SynStream:
    if len(body) < _SYN.size:
        raise ProtocolError(f"SYN_STREAM of {len(body)} bytes")
    stream_id, associated, priority, slot = _SYN.unpack_from(body)
    return SynStream(stream_id & _MASK31, associated & _MASK31, priority >> 5, slot, body[_SYN.size :])


def parse_stream_block(kind: FrameType, body: bytes) -> StreamBlock:
    if len(body) < _WORD.size:
        raise ProtocolError(f"{kind.name} of {len(body)} bytes")
    return StreamBlock(_WORD.unpack_from(body)[0] & _MASK31, body[_WORD.size :])


def parse_word_pair(kind: FrameType, body: bytes) -> WordPair:
    if len(body) != _PAIR.size:
        raise ProtocolError(f"{kind.name} of {len(body)} bytes, 8 belong there")
    stream_id, value = _PAIR.unpack(body)
    return WordPair(stream_id & _MASK31, value)


def parse_ping(body: bytes) -> int:
    if len(body) != _WORD.size:
        raise ProtocolError(f"PING of {len(body)} bytes, 4 belong there")
    return int(_WORD.unpack(body)[0])


def parse_settings(body: bytes) -> tuple[Setting, ...]:
    if len(body) < _WORD.size:
        raise ProtocolError(f"SETTINGS of {len(body)} bytes")
    (count,) = _WORD.unpack_from(body)
    if len(body) != _WORD.size + count * _PAIR.size:
        raise ProtocolError(f"SETTINGS of {len(body)} bytes for {count} entries")
    return tuple(
        Setting(word & MAX_LENGTH, value, word >> 24)
        for word, value in _PAIR.iter_unpack(body[_WORD.size :])
    )


__all__ = [
    "HEAD_SIZE",
    "Setting",
    "StreamBlock",
    "SynStream",
    "WordPair",
    "control_frame",
    "data_head",
    "parse_head",
    "parse_ping",
    "parse_settings",
    "parse_stream_block",
    "parse_syn_stream",
    "parse_word_pair",
    "ping",
    "settings",
    "stream_block",
    "syn_stream",
    "word_pair",
]
