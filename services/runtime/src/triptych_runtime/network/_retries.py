"""Trying failed teardowns again until they succeed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from triptych_errors import TriptychError

log = logging.getLogger(__name__)

_MOST_SECONDS = 300.0


class Retries:
    """Pods whose network is still to be given back, each with its own growing pause.

    :param teardown: what is tried; a failure adds the pod again.
    :param pause: seconds before the first retry.
    """

    def __init__(
        self, teardown: Callable[[str, Path | None], Awaitable[None]], pause: Callable[[], float]
    ) -> None:
        self._teardown = teardown
        self._pause = pause
        self._due: dict[str, float] = {}
        self._count: dict[str, int] = {}
        self._changed = asyncio.Event()

    def add(self, sandbox_id: str) -> None:
        """Try a pod later: the first time after the pause, then after twice as long, up to 5 minutes."""
        count = self._count.get(sandbox_id, 0)
        self._count[sandbox_id] = count + 1
        pause = min(self._pause() * 2 ** min(count, 16), _MOST_SECONDS)
        self._due[sandbox_id] = time.monotonic() + pause
        self._changed.set()

    def forget(self, sandbox_id: str) -> None:
        """It succeeded, or there is nothing to do."""
        self._due.pop(sandbox_id, None)
        self._count.pop(sandbox_id, None)

    async def run(self) -> None:
        """Retry what is due, for ever; pods do not wait for each other."""
        async with asyncio.TaskGroup() as tries:
            while True:
                now = time.monotonic()
                for sandbox_id in [i for i, moment in self._due.items() if moment <= now]:
                    self._due.pop(sandbox_id, None)
                    tries.create_task(self._try(sandbox_id), name=f"network teardown {sandbox_id}")
                await self._pause_until_due(now)

    async def _pause_until_due(self, now: float) -> None:
        self._changed.clear()
        pause = min(self._due.values()) - now if self._due else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._changed.wait()

    async def _try(self, sandbox_id: str) -> None:
        try:
            await self._teardown(sandbox_id, None)
        except (TriptychError, OSError) as error:
            log.warning("network teardown failed again", extra={"sandbox": sandbox_id, "error": str(error)})
            if sandbox_id not in self._due:
                self.add(sandbox_id)
        else:
            log.info("network teardown done", extra={"sandbox": sandbox_id})
