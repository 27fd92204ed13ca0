"""Disk usage of writable layers, from the image daemon, without anybody waiting for a slow walk."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence

from triptych_errors import TriptychError

from triptych_runtime.stats.subjects import LayerReader, LayerUsage

log = logging.getLogger(__name__)

FRESH_SECONDS = 10.0
FIRST_WAIT = 0.2


class LayerCache:
    """Answers with what was measured last, and has it measured anew in the background when it is old.

    :param reader: asks the image daemon; None when there is nothing to ask.
    :param tasks: owns the background work.
    :param fresh: seconds for which a measurement is good.
    :param first_wait: seconds to wait for containers that were never measured.
    """

    def __init__(
        self,
        reader: LayerReader | None,
        tasks: asyncio.TaskGroup,
        *,
        fresh: float = FRESH_SECONDS,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self._reader = reader
        self._tasks = tasks
        self._fresh = fresh
        self._first_wait = first_wait
        self._known: dict[str, tuple[float, LayerUsage | None]] = {}
        self._running: asyncio.Task[None] | None = None
        self._wanted: set[str] = set()

    async def get(self, ids: Sequence[str]) -> Mapping[str, LayerUsage]:
        """What is known of these containers; never waits longer than `first_wait`."""
        if self._reader is None:
            return {}
        now = time.monotonic()
        stale = [i for i in ids if i not in self._known or now - self._known[i][0] > self._fresh]
        if stale:
            self._refresh(stale)
        if self._running is not None and any(i not in self._known for i in ids):
            await asyncio.wait((self._running,), timeout=self._first_wait)
        found = ((i, self._known.get(i, (0.0, None))[1]) for i in ids)
        return {i: usage for i, usage in found if usage is not None}

    def keep(self, ids: Collection[str]) -> None:
        """Forget all but these."""
        for key in self._known.keys() - set(ids):
            del self._known[key]

    def _refresh(self, ids: Sequence[str]) -> None:
        self._wanted.update(ids)
        if self._running is None:
            self._running = self._tasks.create_task(self._measure(), name="writable layer usage")

    async def _measure(self) -> None:
        try:
            while self._wanted and self._reader is not None:
                ids, self._wanted = sorted(self._wanted), set()
                try:
                    usage = await self._reader(ids)
                except TriptychError as error:
                    log.warning("no usage of writable layers", extra={"error": str(error)})
                    usage = {}
                now = time.monotonic()
                for key in ids:
                    last = self._known.get(key, (0.0, None))[1]
                    # Without an answer the last one stands, and is asked for again when it is due.
                    self._known[key] = (now, usage.get(key, last))
        finally:
            self._running = None
