"""How far pulls are, for those who watch."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


class Stage(enum.IntEnum):
    """Where a pull or a layer is; the numbers of `triptych.image.v1.PullStage`."""

    RESOLVING = 1
    WAITING = 2
    FETCHING = 3
    COMMITTING = 4
    DONE = 5
    FAILED = 6
    PRESENT = 7


@dataclass(slots=True)
class LayerProgress:
    """One layer; changes while it is pulled. Shared by all pulls that wait for it."""

    digest: str
    total: int
    stage: Stage = Stage.WAITING
    received: int = 0
    unpacked: int = 0
    entries: int = 0
    host: str = ""

    def begin(self) -> None:
        """An attempt begins."""
        self.stage, self.received, self.unpacked, self.entries = Stage.FETCHING, 0, 0, 0

    def count(self, received: int) -> None:
        """Bytes arrived."""
        self.received += received


@dataclass(slots=True, eq=False)
class PullRecord:
    """One pull; changes while it runs."""

    reference: str
    started_at: int = field(default_factory=time.time_ns)
    stage: Stage = Stage.RESOLVING
    layers: list[LayerProgress] = field(default_factory=list)
    host: str = ""
    image_id: str = ""
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.stage in (Stage.DONE, Stage.FAILED)


class PullBoard:
    """All pulls that run, and those that just ended."""

    def __init__(self) -> None:
        self._running: list[PullRecord] = []
        self._watchers: set[asyncio.Queue[PullRecord]] = set()
        self.on_end: Callable[[PullRecord], None] = lambda record: None
        """Told of every pull that ended."""

    def __iter__(self) -> Iterator[PullRecord]:
        return iter(list(self._running))

    def begin(self, reference: str) -> PullRecord:
        """A pull starts."""
        record = PullRecord(reference)
        self._running.append(record)
        return record

    def end(self, record: PullRecord, stage: Stage, error: Exception | None = None) -> None:
        """A pull ended; every watcher is told, however short it was."""
        record.stage = stage
        record.error = error
        self._running.remove(record)
        self.on_end(record)
        for queue in self._watchers:
            queue.put_nowait(record)

    def watch(self) -> Watch:
        """Be told of every pull that ends from now on."""
        return Watch(self._watchers)


class Watch:
    """Use as a context manager; `ended` holds pulls that ended since the last look."""

    def __init__(self, watchers: set[asyncio.Queue[PullRecord]]) -> None:
        self._watchers = watchers
        self._queue: asyncio.Queue[PullRecord] = asyncio.Queue()

    def __enter__(self) -> Watch:
        self._watchers.add(self._queue)
        return self

    def __exit__(self, *_: object) -> None:
        self._watchers.discard(self._queue)

    def ended(self) -> list[PullRecord]:
        """Pulls that ended since the last call."""
        found: list[PullRecord] = []
        while not self._queue.empty():
            found.append(self._queue.get_nowait())
        return found
