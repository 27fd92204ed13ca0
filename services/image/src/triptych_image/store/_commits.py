"""Images that are whole at about the same time are made visible together: one sync and one transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from triptych_image.store._disk import disk_error
from triptych_image.store.records import ImageRecord, NameRecord

_GATHER_SECONDS: Final = 0.05
"""How long a commit waits for those that are coming; next to the time that an image takes it is nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """An image that waits to be made visible under names."""

    image: ImageRecord
    names: tuple[NameRecord, ...]
    done: asyncio.Future[None]


class Committer:
    """Commits one batch after the other; who comes while one runs is of the next.

    All that an image is made of is written before its commit is asked for, and a batch is closed before its
    sync begins: so the sync covers every image of the batch, and their rows follow it.

    :param sync: returns once everything written before is durable.
    :param write: makes the rows, all or none, and hands them to the database before it first waits.
    """

    def __init__(
        self, sync: Callable[[], Awaitable[None]], write: Callable[[Sequence[Commit]], Awaitable[None]]
    ) -> None:
        self._sync = sync
        self._write = write
        self._waiting: list[Commit] = []
        self._coming = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Wait for the end of what runs."""
        if self._task is not None:
            await asyncio.wait([self._task])

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """A commit is being prepared: others wait a moment for it. Without one nobody waits."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._changed.set()

    async def commit(self, image: ImageRecord, names: Sequence[NameRecord]) -> None:
        """Return once the image is visible, now and after a power loss.

        One whose caller is cancelled before the rows are written is left out.

        :raises DiskFull: when the disk does not take it.
        """
        commit = Commit(image, tuple(names), asyncio.get_running_loop().create_future())
        self._waiting.append(commit)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="commits")
        try:
            await commit.done
        finally:
            if commit in self._waiting:
                self._waiting.remove(commit)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                batch, self._waiting = self._waiting, []
                try:
                    await self._commit(batch)
                finally:
                    for item in batch:
                        item.done.cancel()  # of those that were not told: nobody waits for ever
        finally:
            self._task = None

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_SECONDS):
                while self._coming > len(self._waiting):
                    self._changed.clear()
                    await self._changed.wait()

    async def _commit(self, batch: Sequence[Commit]) -> None:
        try:
            await self._sync()
        except Exception as error:
            for item in batch:
                step = f"sync image {item.image.id}"
                _settle(item, disk_error(error, step) if isinstance(error, OSError) else error)
            return
        # A caller that was cancelled gives up its claims next, and what it claimed may go then: nothing is
        # awaited from here until the rows are the database's.
        wanted = [item for item in batch if not item.done.done()]
        try:
            if wanted:
                await self._write(wanted)
        except Exception as error:
            if len(wanted) == 1:
                _settle(wanted[0], error)
                return
            # One may be to blame: each for itself.
            for item in wanted:
                await self._commit([item])
        else:
            for item in wanted:
                _settle(item)


def _settle(commit: Commit, error: Exception | None = None) -> None:
    if commit.done.done():
        return
    if error is None:
        commit.done.set_result(None)
    else:
        commit.done.set_exception(error)
