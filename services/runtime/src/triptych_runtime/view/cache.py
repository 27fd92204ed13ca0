"""Statuses and list entries are built once a change, not once a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

R = TypeVar("R")
M = TypeVar("M")


class MessageCache(Generic[R, M]):
    """The message of each record; valid as long as the record is the same object."""

    def __init__(self, build: Callable[[R], M]) -> None:
        self._build = build
        self._entries: dict[str, tuple[R, M]] = {}

    def get(self, identity: str, record: R) -> M:
        """The message of a record. Callers must not change it."""
        entry = self._entries.get(identity)
        if entry is None or entry[0] is not record:
            entry = self._entries[identity] = (record, self._build(record))
        return entry[1]

    def forget(self, identity: str) -> None:
        """Drop the message of a record that is gone."""
        self._entries.pop(identity, None)
