"""How much writable layers hold."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from triptych_image.rootfs import quota
from triptych_image.rootfs.walk import walk

_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage of one writable layer.

    :param measured_at: Unix time in nanoseconds.
    """

    bytes: int
    inodes: int
    measured_at: int


class UsageMeter:
    """Measures by walking, or by asking the quota where there is one; remembers for a few seconds.

    Who asks gets a value that is at most `max_age` seconds old, or the last known one if measuring takes
    longer than a second: a layer with a million files must not hold up the kubelet.
    """

    def __init__(self, max_age: float) -> None:
        self.max_age = max_age
        self._known: dict[str, Usage] = {}
        self._running: dict[str, asyncio.Future[Usage | None]] = {}
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="usage")

    def close(self) -> None:
        """Measure no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def forget(self, keys: Iterable[str]) -> None:
        """Layers were removed; a walk that goes on in one of them is for nobody."""
        for key in keys:
            self._known.pop(key, None)
            self._running.pop(key, None)

    def known(self) -> tuple[int, int]:
        """Bytes and inodes of all layers as last measured, at once."""
        return sum(u.bytes for u in self._known.values()), sum(u.inodes for u in self._known.values())

    async def measure(self, wanted: Iterable[tuple[str, Path, int]]) -> dict[str, Usage]:
        """Usage by key.

        :param wanted: key, directory and quota project (0 for none) of each.
        """
        layers = list(wanted)
        running = [task for key, path, project in layers if (task := self._refresh(key, path, project))]
        if running:
            await asyncio.wait(running, timeout=_PATIENCE_SECONDS)
        # One that was never measured is waited for: zero would be a lie.
        late = [
            self._running[key] for key, _, _ in layers if key not in self._known and key in self._running
        ]
        if late:
            await asyncio.wait(late)
        return {key: self._known[key] for key, _, _ in layers if key in self._known}

    def refresh(self, wanted: Iterable[tuple[str, Path, int]]) -> None:
        """Measure what is too old, without waiting."""
        for key, path, project in wanted:
            self._refresh(key, path, project)

    def _refresh(self, key: str, path: Path, project: int) -> asyncio.Future[Usage | None] | None:
        known = self._known.get(key)
        if known is not None and 0 <= time.time_ns() - known.measured_at < self.max_age * 1e9:
            return None
        running = self._running.get(key)
        if running is not None:
            return running
        work: Callable[[], Usage | None] = lambda: _measure(path, project)  # noqa: E731
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._running[key] = future
        future.add_done_callback(lambda done: self._finish(key, done))
        return future

    def _finish(self, key: str, done: asyncio.Future[Usage | None]) -> None:
        if self._running.get(key) is not done:
            return
        del self._running[key]
        if not done.cancelled() and done.exception() is None and (usage := done.result()) is not None:
            self._known[key] = usage


def _measure(path: Path, project: int) -> Usage | None:
    """None when it is gone."""
    if project:
        try:
            size, inodes = quota.usage(path, project)
            return Usage(size, inodes, time.time_ns())
        except OSError:
            pass
    try:
        size, inodes = os.lstat(path).st_blocks * 512, 1
        linked: set[int] = set()
        for info in walk(path):
            if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                if info.st_ino in linked:
                    continue
                linked.add(info.st_ino)
            size += info.st_blocks * 512
            inodes += 1
    except OSError:
        return None
    return Usage(size, inodes, time.time_ns())
