"""Cutting lists for the Stream* RPCs (KEP-5825)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

#: Entries a message: small enough that one message never nears gRPC's limit.
CHUNK = 500


def chunks(items: list[T]) -> Iterator[list[T]]:
    """Consecutive parts of `items`; nothing for an empty list."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
