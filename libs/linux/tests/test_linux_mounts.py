"""Mounts, namespaces and pidfds on the real kernel."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from pathlib import Path

import pytest
from triptych_linux import mounts, namespaces, overlay, pidfd
from triptych_linux.namespaces import Namespace

pytestmark = pytest.mark.integration


def _without_lowerdir_plus(*_: object) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize("kernel", ["this", "one without lowerdir+"])
def test_overlay_short_and_long(kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel != "this":
        monkeypatch.setattr(overlay, "_fsconfig_overlay", _without_lowerdir_plus)
    lowers = []
    for index in range(60):
        lower = tmp_path / ("layer" + "x" * 60 + str(index))
        lower.mkdir()
        (lower / f"f{index}").write_text(str(index))
        lowers.append(str(lower))
    upper, work, target = (tmp_path / name for name in ("upper", "work", "target"))
    for directory in (upper, work, target):
        directory.mkdir()
    for count in (2, 60):
        overlay.mount_overlay(target, lowers[:count], upper=str(upper), work=str(work), options=["volatile"])
        try:
            assert len(list(target.iterdir())) == count
            assert mounts.is_mount_point(target)
            assert mounts.mount_of(target).fstype == "overlay"
        finally:
            mounts.umount(target)
        # A volatile overlay leaves a mark that the next mount refuses (overlayfs.rst, "Volatile mount").
        subprocess.run(["rm", "-rf", str(work / "work")], check=True)
    assert mounts.umount(target) is False


def test_more_layers_than_any_way_can_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "_fsconfig_overlay", _without_lowerdir_plus)
    with pytest.raises(OSError, match="Invalid argument"):
        overlay.mount_overlay(tmp_path, [str(tmp_path)] * 400)


def test_one_lower_is_a_read_only_bind(tmp_path: Path) -> None:
    lower, target = tmp_path / "lower", tmp_path / "target"
    lower.mkdir()
    target.mkdir()
    overlay.mount_overlay(target, [str(lower)])
    try:
        with pytest.raises(OSError, match="Read-only"):
            (target / "x").write_text("x")
    finally:
        mounts.umount(target)


@pytest.mark.parametrize("slave", [False, True])
def test_a_bind_with_other_attributes_is_no_peer_of_its_source(tmp_path: Path, slave: bool) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    mounts.mount("tmpfs", source, "tmpfs", mounts.Flag.NODEV)
    try:
        mounts.mount("none", source, None, mounts.Flag.SHARED)
        for name in ("early", "late"):
            (source / name).mkdir()
        mounts.mount("tmpfs", source / "early", "tmpfs")
        changes = [
            mounts.Attributes(mounts.MOUNT_ATTR_NOEXEC, recursive=True),
            mounts.Attributes(mounts.MOUNT_ATTR_NOATIME, mounts.MOUNT_ATTR__ATIME),
            mounts.Attributes(clear=mounts.MOUNT_ATTR_NODEV),
        ]
        mounts.bind_with(source, target, changes, slave=slave)
        assert set(mounts.mount_of(target).options.split(",")) == {"rw", "noexec", "noatime"}
        assert set(mounts.mount_of(target / "early").options.split(",")) == {"rw", "noexec", "relatime"}
        assert "noexec" not in mounts.mount_of(source).options
        mounts.mount("tmpfs", source / "late", "tmpfs")
        assert mounts.is_mount_point(target / "late") == slave
        mounts.umount_all(target)
        assert not mounts.is_mount_point(target)
        assert mounts.is_mount_point(source / "early") and mounts.is_mount_point(source / "late")
    finally:
        mounts.umount_below(tmp_path)


async def test_pinned_namespace(tmp_path: Path) -> None:
    pin = tmp_path / "uts"

    def make() -> None:
        namespaces.unshare(Namespace.UTS)
        namespaces.pin(Namespace.UTS, pin)

    await namespaces.in_thread(make)
    try:
        assert os.stat(pin).st_ino != os.stat("/proc/self/ns/uts").st_ino

        def look() -> int:
            namespaces.enter(pin, Namespace.UTS)
            return os.stat("/proc/thread-self/ns/uts").st_ino

        assert await namespaces.in_thread(look) == os.stat(pin).st_ino
    finally:
        namespaces.unpin(pin)
    assert not pin.exists()
    with pytest.raises(FileNotFoundError):
        await namespaces.in_thread(look)


async def test_process_identity_and_exit() -> None:
    child = subprocess.Popen(["sleep", "50"])
    identity = pidfd.ProcessIdentity.of(child.pid)
    assert identity.alive()
    assert not pidfd.ProcessIdentity(child.pid, identity.start_ticks + 1).alive()
    fd = identity.open()
    assert pidfd.send_signal(fd, 9)
    await asyncio.wait_for(pidfd.wait_exit(fd), 5)
    assert not identity.alive()
    child.wait()
    assert not pidfd.send_signal(fd, 9)
    os.close(fd)
    with pytest.raises(ProcessLookupError):
        pidfd.ProcessIdentity.of(child.pid)
