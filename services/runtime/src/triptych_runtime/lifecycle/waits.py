"""Waiting for something to happen to an object."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Waits(Generic[T]):
    """Futures by ID; `notify` resolves all that wait for that ID."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[T]]] = {}

    async def wait(self, identity: str, seconds: float | None) -> T:
        """Wait for the next `notify` of `identity`.

        :raises TimeoutError: when it does not come in time.
        """
        with self.expecting(identity) as future:
            async with asyncio.timeout(seconds):
                return await future

    @contextlib.contextmanager
    def expecting(self, identity: str) -> Iterator[asyncio.Future[T]]:
        """The next `notify` of `identity`, none of which is missed from now on."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(identity, set()).add(future)
        try:
            yield future
        finally:
            waiting = self._waiting.get(identity)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[identity]

    def notify(self, identity: str, value: T) -> None:
        """Wake everybody who waits for `identity`."""
        for future in list(self._waiting.get(identity, ())):
            if not future.done():
                future.set_result(value)
