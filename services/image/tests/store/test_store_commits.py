"""When images are synced and recorded together, and what becomes of each when one of them fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Sequence
from pathlib import Path

import pytest
from triptych_image.errors import DiskFull, ImageNotFound
from triptych_image.store import ImageKind, ImageRecord, _commits, durability
from triptych_image.store._commits import Commit, Committer
from triptych_oci import Digest


def image(name: str) -> ImageRecord:
    digest = Digest.of(name.encode())
    return ImageRecord(name, ImageKind.IMAGE, digest, digest, (), (), 0, "", {}, 0o755, 0, 0, "", 1)


class Disk:
    """A sync that waits to be let through, and rows that are written at once.

    :ivar events: "sync", then the names of the images that were written, joined.
    :ivar refused: images that the database does not take.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.syncing = asyncio.Event()
        self.full = False
        self.refused: set[str] = set()
        self.committer = Committer(self._sync, self._write)

    async def _sync(self) -> None:
        self.events.append("sync")
        self.syncing.set()
        await self.open.wait()
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    async def _write(self, commits: Sequence[Commit]) -> None:
        names = [commit.image.id for commit in commits]
        if self.refused.intersection(names):
            raise ImageNotFound("a layer is gone")
        self.events.append("".join(names))

    def commit(self, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(self.committer.commit(image(name), []))

    def coming(self, count: int) -> contextlib.ExitStack:
        """So many commits are being prepared while it is open."""
        stack = contextlib.ExitStack()
        for _ in range(count):
            stack.enter_context(self.committer.coming())
        return stack


@pytest.fixture
async def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """One at which who gathers waits for all."""
    monkeypatch.setattr(_commits, "_GATHER_SECONDS", 3600.0)
    return Disk()


async def settled() -> None:
    """Let all that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_alone_waits_for_nobody(disk: Disk) -> None:
    with disk.coming(1):
        async with asyncio.timeout(60):
            await disk.commit("a")
    assert disk.events == ["sync", "a"]


async def test_those_that_are_coming_share_a_sync_and_a_transaction(disk: Disk) -> None:
    with disk.coming(3):
        tasks = [disk.commit("a"), disk.commit("b")]
        await settled()
        assert disk.events == []
        tasks.append(disk.commit("c"))
        await asyncio.gather(*tasks)
    assert disk.events == ["sync", "abc"]


async def test_one_that_does_not_come_is_not_waited_for(disk: Disk) -> None:
    with disk.coming(1):
        with disk.coming(1):
            first = disk.commit("a")
            await settled()
            assert disk.events == []
        await first
    assert disk.events == ["sync", "a"]


async def test_nobody_waits_long(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_commits, "_GATHER_SECONDS", 0.01)
    with disk.coming(2):
        async with asyncio.timeout(60):
            await disk.commit("a")
    assert disk.events == ["sync", "a"]


async def test_who_comes_during_a_sync_is_of_the_next(disk: Disk) -> None:
    disk.open.clear()
    first = disk.commit("a")
    await disk.syncing.wait()
    others = [disk.commit(name) for name in "bcd"]
    await settled()
    assert disk.events == ["sync"]
    disk.open.set()
    await asyncio.gather(first, *others)
    assert disk.events == ["sync", "a", "sync", "bcd"]


async def test_who_is_cancelled_before_the_rows_is_left_out(disk: Disk) -> None:
    disk.open.clear()
    with disk.coming(2):
        one, two = disk.commit("a"), disk.commit("b")
        await disk.syncing.wait()
    waiting = disk.commit("c")
    await settled()
    waiting.cancel()
    disk.open.set()
    one.cancel()
    await two
    await disk.committer.close()
    assert disk.events == ["sync", "b"]


async def test_without_a_sync_no_rows(disk: Disk) -> None:
    disk.full = True
    with disk.coming(2):
        failed = await asyncio.gather(disk.commit("a"), disk.commit("b"), return_exceptions=True)
    assert [type(error) for error in failed] == [DiskFull, DiskFull]
    disk.full = False
    await disk.commit("c")
    assert disk.events == ["sync", "sync", "c"]


async def test_a_sync_that_breaks_leaves_nobody_waiting(disk: Disk) -> None:
    async def broken() -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    disk.committer = Committer(broken, disk._write)
    with pytest.raises(RuntimeError, match="after shutdown"):
        async with asyncio.timeout(60):
            await disk.commit("a")


async def test_one_that_cannot_be_written_fails_alone(disk: Disk) -> None:
    disk.refused = {"b"}
    with disk.coming(3):
        one, two, three = (disk.commit(name) for name in "abc")
        await asyncio.wait([one, two, three])
    assert (one.exception(), three.exception()) == (None, None)
    assert isinstance(two.exception(), ImageNotFound)
    assert [event for event in disk.events if event != "sync"] == ["a", "c"]


async def test_it_really_syncs(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    await durability.sync(tmp_path)
    assert len(durability.boot_id()) == 36
