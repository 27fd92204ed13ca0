"""Packed archives are unpacked by a confined worker first, and take no more than they may."""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import gzip
import lzma
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from triptych_image.errors import DiskFull, ImageMalformed, InvalidRequest, LayerMalformed, LayerTooLarge
from triptych_image.offline import archives
from triptych_image.settings import Settings
from triptych_image.store import Store
from triptych_image.unpack.pool import UnpackWorkers

pytestmark = pytest.mark.integration


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def with_unpack(**changes: Any) -> Settings:
    changes = {"reserve_bytes": 0, **changes}
    return msgspec.structs.replace(Settings(), unpack=msgspec.structs.replace(Settings().unpack, **changes))


@pytest.mark.parametrize("packing", ["gzip", "zstd", "zstd behind a skippable frame"])
async def test_what_is_packed_is_read(
    packing: str, tmp_path: Path, store: Store, workers: UnpackWorkers, tar: Any
) -> None:
    data = tar().file(b"a", b"1" * 600_000).end()
    packed = gzip.compress(data) if packing == "gzip" else zstandard.compress(data)
    if "skippable" in packing:
        packed = b"\x50\x2a\x4d\x18\x04\0\0\0note" + packed
    path = written(tmp_path / "x.tgz", packed)
    async with archives.opened(path, store, workers, with_unpack()) as archive:
        member = archive.find("a")
        assert member is not None and archives.read(member, "a") == b"1" * 600_000
        assert member.path.parent == store.paths.tmp
    assert os.listdir(store.paths.tmp) == []


async def test_a_packed_archive_takes_no_more_than_it_may(
    tmp_path: Path, store: Store, workers: UnpackWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "x.tgz", gzip.compress(bytes(8 << 20)))
    with pytest.raises(DiskFull, match="below the reserve"):
        async with archives.opened(path, store, workers, with_unpack(reserve_bytes=1 << 60)):
            pass
    monkeypatch.setattr(archives, "RATIO_FLOOR", 1 << 20)
    with pytest.raises(LayerTooLarge, match="more than 20 times"):
        async with archives.opened(path, store, workers, with_unpack(max_ratio=20)):
            pass
    assert os.listdir(store.paths.tmp) == []
    async with archives.opened(path, store, workers, with_unpack(max_ratio=0)):
        assert len(os.listdir(store.paths.tmp)) == 1
    assert os.listdir(store.paths.tmp) == []


async def test_no_room_for_a_packed_archive_is_a_full_disk(
    tmp_path: Path, store: Store, workers: UnpackWorkers
) -> None:
    path = written(tmp_path / "x.tgz", gzip.compress(bytes(8 << 20)))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", store.paths.tmp], check=True)
    try:
        with pytest.raises(DiskFull, match="No space left"):
            async with archives.opened(path, store, workers, with_unpack()):
                pass
        assert os.listdir(store.paths.tmp) == []
    finally:
        subprocess.run(["umount", store.paths.tmp], check=True)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (lzma.compress(b"x"), "packed with xz"),
        (bz2.compress(b"x"), "packed with bzip2"),
        (b"\x1f\x8bjunk", "gzip"),
        (gzip.compress(os.urandom(1000))[:500], "ends too early"),
    ],
)
async def test_packings_that_cannot_be_read(
    data: bytes, problem: str, tmp_path: Path, store: Store, workers: UnpackWorkers
) -> None:
    with pytest.raises(LayerMalformed, match=problem):
        async with archives.opened(written(tmp_path / "x", data), store, workers, with_unpack()):
            pass
    with pytest.raises(ImageMalformed, match="no tar archive"):
        path = written(tmp_path / "y", gzip.compress(b"junk"))
        async with archives.opened(path, store, workers, with_unpack()):
            pass
    assert os.listdir(store.paths.tmp) == []


async def test_who_leaves_leaves_no_archive_and_no_worker_behind(
    tmp_path: Path, store: Store, workers: UnpackWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = asyncio.Event()
    original = store.free_bytes

    def free() -> int:
        if os.listdir(store.paths.tmp):
            began.set()
        return original()

    async def load() -> None:
        async with archives.opened(path, store, workers, with_unpack(max_ratio=0)):
            raise AssertionError("it was opened")

    monkeypatch.setattr(store, "free_bytes", free)
    # 16 GiB, which nobody waits for.
    path = written(tmp_path / "x.tgz", gzip.compress(bytes(64 << 20), 1) * 256)
    task = asyncio.create_task(load())
    await began.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert os.listdir(store.paths.tmp) == []
    assert workers._child is not None
    first = Path(f"/proc/{workers._child.pid}/task/{workers._child.pid}/children").read_text().split()
    async with asyncio.timeout(60):
        while any(Path(f"/proc/{pid}/task/{pid}/children").read_text() for pid in first):
            await asyncio.sleep(0.02)


async def test_a_fifo_is_no_archive(tmp_path: Path, store: Store, workers: UnpackWorkers) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidRequest, match="neither a file nor a directory"):
        async with archives.opened(tmp_path / "fifo", store, workers, with_unpack()):
            pass
