"""Entries of lists in their encoded form."""

from __future__ import annotations

from google.protobuf.message import Message

# Field 1, length-delimited: all lists of pods and containers have their entries there.
_TAG = b"\x0a"


def list_entry(message: Message) -> bytes:
    """A message as an element of the repeated field 1 of whatever message it is put into.

    Concatenated entries are that message (https://protobuf.dev/programming-guides/encoding/).
    """
    data = message.SerializeToString()
    return _TAG + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
