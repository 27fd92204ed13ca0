"""Many at once, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Attachments change in parallel, but never beside a garbage collection (specification, section 3)."""

    def __init__(self) -> None:
        self._door = asyncio.Lock()
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """With others, as soon as nobody is alone."""
        async with self._door:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self, patience: float) -> AsyncIterator[None]:
        """When all have left; others wait until this one is done.

        :param patience: seconds to wait for those inside, since others wait meanwhile.
        :raises TimeoutError: when somebody is still inside after that.
        """
        async with self._door:
            async with asyncio.timeout(patience):
                await self._empty.wait()
            yield
