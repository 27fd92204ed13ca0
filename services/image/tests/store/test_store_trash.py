"""What containers leave in their writable layers must not hold up anything: deep trees, files that stay."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from triptych_image.store import Paths, Store, _trash
from triptych_image.store.records import RootfsKind, RootfsRecord
from triptych_oci import Digest

DEPTH = sys.getrecursionlimit() + 500


@pytest.fixture(autouse=True)
def cleaned(tmp_path: Path) -> Iterator[None]:
    """pytest frees its directories with a recursion."""
    yield
    subprocess.run(["rm", "-rf", tmp_path], check=True)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "store", tmp_path / "store/rootfs")
    made.make()
    return made


@pytest.fixture
def two_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Paths:
    """Paths whose writable layers behave as on a file system of their own."""
    made = Paths(tmp_path / "store", tmp_path / "other")
    made.make()
    real = os.rename

    def rename(source: Any, target: Any, **fds: Any) -> None:
        if not fds and made.rootfs in Path(source).parents and made.rootfs not in Path(target).parents:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target, **fds)

    monkeypatch.setattr(os, "rename", rename)
    return made


@pytest.fixture
def keeps(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of files that cannot be removed, as immutable ones."""
    names: set[str] = set()

    def held(real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, **options: Any) -> None:
            if os.path.basename(path) in names:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
            real(path, **options)

        return call

    monkeypatch.setattr(os, "unlink", held(os.unlink))
    return names


def make_deep(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("a", dir_fd=fd)
        below = os.open("a", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def fill(trash: Path, *names: str) -> None:
    for name in names:
        (trash / name / "d/e").mkdir(parents=True)
        (trash / name / "d/f").write_text("x")


def container(key: str) -> RootfsRecord:
    config = Digest.of(b"{}")
    return RootfsRecord(key, RootfsKind.CONTAINER, "image", config, (), "", "", False, 0, 0, 1)


async def add_container(store: Store, key: str) -> Path:
    directory = store.paths.writable(key)
    await store.add_rootfs(container(key), lambda: (directory / "upper").mkdir(parents=True))
    return directory


def test_no_depth_stops_the_freeing(paths: Paths) -> None:
    fill(paths.trash, "0", "1", "2")
    (paths.trash / "deep").mkdir()
    make_deep(paths.trash / "deep")
    (paths.trash / "link").symlink_to(paths.root)
    fill(paths.trash, "3", "4", "5")
    _trash.empty_trash(paths)
    assert os.listdir(paths.trash) == []
    assert paths.blobs.is_dir()


def test_what_cannot_be_removed_stays_alone_and_is_told_once(
    paths: Paths, keeps: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    fill(paths.trash, "0", "1", "2", "3")
    keeps |= {"fixed"}
    for place in (paths.trash / "1/d/fixed", paths.trash / "2/d/e/fixed", paths.trash / "fixed"):
        place.touch()
    with caplog.at_level(logging.WARNING, logger=_trash.__name__):
        _trash.empty_trash(paths)
    left = [path for path in paths.trash.rglob("*") if not path.is_dir()]
    assert [path.name for path in left] == ["fixed"] * 3
    assert len(caplog.records) == 1
    keeps.clear()
    _trash.empty_trash(paths)
    assert os.listdir(paths.trash) == []


async def test_layers_on_another_disk_have_a_trash_there(two_disks: Paths) -> None:
    store = Store(two_disks, sync=False)
    await store.open()
    directory = await add_container(store, "c1")
    make_deep(directory / "upper")
    await store.remove_rootfs(["c1"])
    assert os.listdir(two_disks.rootfs) == [".trash"]
    assert len(os.listdir(two_disks.rootfs_trash)) == 1
    await store.close()
    again = Store(two_disks, sync=False)
    await again.open()
    assert len(os.listdir(two_disks.rootfs_trash)) == 1
    await again.empty_trash()
    assert os.listdir(two_disks.rootfs_trash) == []
    await again.close()


async def test_a_stray_on_another_disk_does_not_keep_the_daemon_from_starting(
    two_disks: Paths, keeps: set[str]
) -> None:
    stray = two_disks.rootfs / "stray/upper"
    stray.mkdir(parents=True)
    make_deep(stray)
    keeps |= {"file"}
    store = Store(two_disks, sync=False)
    await store.open()
    assert os.listdir(two_disks.rootfs) == [".trash"]
    await store.close()


async def test_where_the_trash_takes_no_more_a_removal_frees_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await add_container(store, "c1"), await add_container(store, "c2")
    make_deep(one / "upper")
    real = os.rename

    def rename(source: Any, target: Any, **fds: Any) -> None:
        if not fds:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target, **fds)

    monkeypatch.setattr(os, "rename", rename)
    await store.remove_rootfs(["c1", "c2"])
    assert not one.exists() and not two.exists()
    assert store.snapshot.rootfs == {}
