"""List entries are built once a change, not once a list: a list of 1,000 then is a copy in C."""

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

    def prune(self, alive: dict[str, R]) -> None:
        """Forget what is gone, when that is most of it."""
        if len(self._entries) > 2 * len(alive) + 64:
            self._entries = {k: v for k, v in self._entries.items() if k in alive}
