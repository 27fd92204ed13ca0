"""What a stranger's image archive may ask of the daemon."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import os
import tarfile
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from triptych_image.errors import DiskFull, ImageMalformed, LayerTooLarge
from triptych_image.offline import archives, members
from triptych_image.offline.members import Archive, TarArchive
from triptych_image.settings import Settings
from triptych_image.store import Store


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def content(archive: Archive, name: str) -> bytes | None:
    member = archive.find(name)
    return None if member is None else archives.read(member, name)


def with_unpack(**changes: Any) -> Settings:
    changes = {"reserve_bytes": 0, **changes}
    return msgspec.structs.replace(Settings(), unpack=msgspec.structs.replace(Settings().unpack, **changes))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_tarfile_put_them(form: int, tmp_path: Path) -> None:
    out = io.BytesIO()
    long = "d/" * 60 + "blob"
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in (("empty", b""), ("./a", b"1" * 511), (long, b"2" * 513), ("/b", b"3" * 70_000)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for kind, name, target in ((tarfile.SYMTYPE, "d/up", "../b"), (tarfile.LNKTYPE, "hard", "./a")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    found = TarArchive(written(tmp_path / "x.tar", out.getvalue()))
    assert content(found, "empty") == b""
    assert content(found, "a") == content(found, "hard") == b"1" * 511
    assert content(found, long) == b"2" * 513
    assert content(found, "../b") == content(found, "d/up") == b"3" * 70_000
    assert content(found, "d") is content(found, "c") is None


def test_an_extended_header_of_any_size_is_not_read(tmp_path: Path, tar: Any) -> None:
    path = tmp_path / "x.tar"
    for kind in (b"x", b"g", b"L", b"K"):
        path.write_bytes(tar().header(b"x", kind=kind, size=1 << 40).end())
        with pytest.raises(ImageMalformed, match="extended header has 1099511627776 bytes"):
            TarArchive(path)


def test_many_extended_headers_of_one_member_are_too_much(tmp_path: Path, tar: Any) -> None:
    archive = tar()
    for _ in range(3):
        archive.pax({b"comment": b"x" * 700_000})
    with pytest.raises(ImageMalformed, match="extended headers of one entry"):
        TarArchive(written(tmp_path / "x.tar", archive.file(b"a").end()))


def test_names_are_too_much_together(tmp_path: Path, tar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_NAMES_MAX", 100_000)
    archive = tar()
    for number in range(3):
        archive.pax({b"path": b"%d" % number * 40_000}).file(b"a")
    with pytest.raises(ImageMalformed, match="names of its members"):
        TarArchive(written(tmp_path / "x.tar", archive.end()))


def test_thousands_of_members_are_too_much(
    tmp_path: Path, tar: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "_MEMBERS_MAX", 20)
    archive = tar()
    for number in range(21):
        archive.file(b"%d" % number)
    with pytest.raises(ImageMalformed, match="more than 20 entries"):
        TarArchive(written(tmp_path / "x.tar", archive.end()))


def test_what_breaks_off_is_no_archive(tmp_path: Path, tar: Any) -> None:
    whole = tar().file(b"a", b"1" * 5000).end()
    for size in (700, 3000, 5500):
        with pytest.raises(ImageMalformed, match="ends too early"):
            TarArchive(written(tmp_path / "x.tar", whole[:size]))
    assert content(TarArchive(written(tmp_path / "x.tar", whole[:-1024])), "a") == b"1" * 5000


def test_a_sparse_member_is_none_to_read(tmp_path: Path, tar: Any) -> None:
    archive = tar().pax({b"GNU.sparse.map": b"0,1,100000,2", b"GNU.sparse.size": b"200000"})
    found = TarArchive(written(tmp_path / "x.tar", archive.file(b"s", b"abc").file(b"t", b"4").end()))
    assert content(found, "s") is None
    assert content(found, "t") == b"4"


async def test_a_packed_archive_takes_no_more_than_it_may(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "x.tgz", gzip.compress(bytes(8 << 20)))
    with pytest.raises(DiskFull, match="below the reserve"):
        async with archives.opened(path, store, with_unpack(reserve_bytes=1 << 60)):
            pass
    monkeypatch.setattr(archives, "RATIO_FLOOR", 1 << 20)
    with pytest.raises(LayerTooLarge, match="more than 20 times"):
        async with archives.opened(path, store, with_unpack(max_ratio=20)):
            pass
    assert os.listdir(store.paths.tmp) == []
    async with archives.opened(path, store, with_unpack(max_ratio=0)):
        assert len(os.listdir(store.paths.tmp)) == 1
    assert os.listdir(store.paths.tmp) == []


async def test_no_room_for_a_packed_archive_is_a_full_disk(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(store, "free_bytes", full)
    with pytest.raises(DiskFull, match="no space left"):
        async with archives.opened(written(tmp_path / "x", gzip.compress(b"x")), store, with_unpack()):
            pass


async def test_who_leaves_leaves_no_archive_behind(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def free() -> int:
        began.set()
        go_on.wait(60)
        return 1 << 60

    async def load() -> None:
        async with archives.opened(path, store, with_unpack()):
            raise AssertionError("it was opened")

    monkeypatch.setattr(store, "free_bytes", free)
    path = written(tmp_path / "x.tgz", gzip.compress(bytes(64 << 20), 1))
    task = asyncio.create_task(load())
    await asyncio.to_thread(began.wait, 60)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert os.listdir(store.paths.tmp) == []
