"""Records to bytes and back: MessagePack, with protobuf messages as their own wire form."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message

T = TypeVar("T")


def _encode(value: Any) -> Any:
    if isinstance(value, Message):
        return value.SerializeToString()
    raise NotImplementedError(f"cannot store {type(value).__name__}")


def _decode(kind: type, value: Any) -> Any:
    if issubclass(kind, Message):
        return kind.FromString(value)
    raise NotImplementedError(f"cannot read {kind.__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode)
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}


def encode(record: msgspec.Struct) -> bytes:
    """The stored form of a record."""
    return _encoder.encode(record)


def decode(data: bytes, kind: type[T]) -> T:
    """The record of a stored form; fields that a newer version added take their defaults.

    :raises msgspec.DecodeError: when the bytes are damaged.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind, dec_hook=_decode)
    result: T = decoder.decode(data)
    return result
