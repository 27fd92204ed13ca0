"""Joined attempts: one piece of work a key, any number of callers.

The CRI's clients time out and ask again. The work belongs to the daemon, not to the call that began it:
a caller that goes away stops waiting, the work goes on to its end, and the retry gets its result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.warning(
            "background work failed", extra={"work": task.get_name(), "error": str(task.exception())}
        )


class Flights:
    """Work in progress by key."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Any]] = {}

    async def join(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the work under `key`, starting it with `work` unless it runs already.

        :raises Exception: what the work raised; every caller gets the same.
        """
        task = self._running.get(key) or self._start(key, work)
        result: T = await asyncio.shield(task)
        return result

    def background(self, key: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Start `work` under `key` without waiting, unless it runs already. A failure is logged."""
        if key not in self._running:
            self._start(key, work).add_done_callback(_log_failure)

    def _start(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work(), name=key)
        self._running[key] = task
        task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def get(self, key: str) -> asyncio.Task[Any] | None:
        """The work that runs under `key`."""
        return self._running.get(key)

    def __contains__(self, key: str) -> bool:
        return key in self._running

    def __len__(self) -> int:
        return len(self._running)

    def _landed(self, key: str, task: asyncio.Task[Any]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # seen here, so that nobody waiting is no warning

    async def drain(self, seconds: float) -> None:
        """Wait for all work to end, at most `seconds`; what is left is cancelled (and so undone)."""
        tasks = list(self._running.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=seconds)
