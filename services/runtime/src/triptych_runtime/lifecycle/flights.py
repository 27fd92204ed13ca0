"""Joined attempts: one piece of work a key, any number of callers.

The CRI's clients time out and ask again. The work belongs to the daemon, not to the call that began it:
a caller that goes away stops waiting, the work goes on to its end, and the retry gets its result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from triptych_errors import TriptychError

from triptych_runtime.errors import CalledOff

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
        self._reasons: WeakKeyDictionary[asyncio.Task[Any], TriptychError] = WeakKeyDictionary()

    async def join(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the work under `key`, starting it with `work` unless it runs already.

        :raises Exception: what the work raised; every caller gets the same.
        """
        task = self.get(key) or self._start(key, work)
        result: T = await self._await(task)
        return result

    async def _await(self, task: asyncio.Task[Any]) -> Any:
        """The outcome of a task; that it was called off is an error here, and no cancellation of ours."""
        await _settled(task)
        if task.cancelled():
            raise self._reasons.get(task) or CalledOff(f"{task.get_name()}: the daemon shuts down")
        return task.result()

    def background(self, key: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Start `work` under `key` without waiting, unless it runs already. A failure is logged."""
        if key not in self:
            self._start(key, work).add_done_callback(_log_failure)

    def _start(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work(), name=key)
        self._running[key] = task
        task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def get(self, key: str) -> asyncio.Task[Any] | None:
        """The work that runs under `key`."""
        task = self._running.get(key)
        return None if task is None or task.done() else task

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return sum(not task.done() for task in self._running.values())

    def _landed(self, key: str, task: asyncio.Task[Any]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # seen here, so that nobody waiting is no warning

    def call_off(self, prefix: str, reason: TriptychError) -> None:
        """Cancel (and so undo) the work under all keys that begin so; its callers get `reason`."""
        for key, task in self._running.items():
            if key.startswith(prefix) and not task.done():
                self._reasons[task] = reason
                task.cancel()

    async def settled(self, *keys: str) -> None:
        """Wait until no work runs under the keys; its failures are not ours."""
        for key in keys:
            task = self.get(key)
            if task is not None:
                await _settled(task)

    async def settled_below(self, prefix: str) -> None:
        """Wait until no work runs under any key that begins so."""
        await self.settled(*(key for key in self._running if key.startswith(prefix)))

    async def drain(self, seconds: float, undo_seconds: float) -> None:
        """Wait for all work to end, at most `seconds`; what is left is cancelled, and has `undo_seconds` to
        undo itself. What is not undone then is left to the next start."""
        tasks = list(self._running.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=undo_seconds)


async def _settled(task: asyncio.Task[Any]) -> None:
    """Wait for a task's end without taking its outcome; a cancelled caller leaves it alone."""
    await asyncio.wait((task,))
