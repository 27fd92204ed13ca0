"""Files of checkpoints: what changed in a root file system, the archive, the manifest."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from triptych_linux import mounts
from triptych_linux.overlay import mount_overlay
from triptych_runtime.checkpoint.archive import write_archive
from triptych_runtime.checkpoint.errors import CheckpointFailed, CheckpointUnreadable
from triptych_runtime.checkpoint.manifest import (
    VERSION,
    ContainerEntry,
    PodManifest,
    read_manifest,
    write_manifest,
)
from triptych_runtime.checkpoint.rootfs import apply_diff, save_diff


class Overlays:
    """Root file systems over the same lower directory."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._mounted: list[Path] = []
        self.lower = base / "lower"
        for name in ("etc", "gone", "keep"):
            (self.lower / name).mkdir(parents=True)
            (self.lower / name / "f").write_text(name)

    def mount(self, name: str) -> Path:
        upper, work, target = (self._base / f"{name}-{part}" for part in ("upper", "work", "root"))
        for directory in (upper, work, target):
            directory.mkdir()
        mount_overlay(target, [str(self.lower)], upper=str(upper), work=str(work))
        self._mounted.append(target)
        return target

    def close(self) -> None:
        for target in self._mounted:
            mounts.umount(target)


@pytest.fixture
def overlays(tmp_path: Path) -> Iterator[Overlays]:
    made = Overlays(tmp_path)
    yield made
    made.close()


@pytest.mark.integration
def test_changes_are_made_again(overlays: Overlays, tmp_path: Path) -> None:
    one = overlays.mount("one")
    (one / "etc/f").write_text("changed")
    (one / "keep/f").unlink()
    (one / "gone/f").unlink()
    (one / "gone").rmdir()
    (one / "gone").mkdir()  # opaque now
    (one / "gone/new").write_text("new")
    (one / "setuid").write_text("x")
    os.chown(one / "setuid", 1234, 4321)
    os.chmod(one / "setuid", 0o4750)
    os.symlink("/etc/f", one / "link")
    dump = tmp_path / "dump"
    dump.mkdir()
    save_diff(one, dump)

    two = overlays.mount("two")
    apply_diff(dump, two)
    assert (two / "etc/f").read_text() == "changed"
    assert not (two / "keep/f").exists()
    assert sorted(os.listdir(two / "gone")) == ["new"]
    status = (two / "setuid").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 4321, 0o4750)
    assert os.readlink(two / "link") == "/etc/f"


@pytest.mark.integration
def test_a_root_without_a_writable_layer_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointFailed, match="no writable layer"):
        save_diff(tmp_path, tmp_path)


@pytest.mark.parametrize("deleted", [["../x"], ["/etc"], ["link/x"], [""]])
def test_deleted_paths_cannot_lead_out(tmp_path: Path, deleted: list[str]) -> None:
    dump, root = tmp_path / "dump", tmp_path / "root"
    dump.mkdir()
    root.mkdir()
    (tmp_path / "x").write_text("precious")
    os.symlink(tmp_path, root / "link")
    (dump / "deleted.files").write_text(json.dumps(deleted))
    tarfile.open(dump / "rootfs-diff.tar", "w").close()
    with pytest.raises(CheckpointUnreadable):
        apply_diff(dump, root)
    assert (tmp_path / "x").read_text() == "precious"


def test_members_cannot_lead_out(tmp_path: Path) -> None:
    dump, root = tmp_path / "dump", tmp_path / "root"
    dump.mkdir()
    root.mkdir()
    (dump / "deleted.files").write_text("[]")
    with tarfile.open(dump / "rootfs-diff.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(CheckpointUnreadable):
        apply_diff(dump, root)
    assert not (tmp_path / "outside").exists()


def test_archive_is_whole_or_not_there(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "checkpoint").mkdir(parents=True)
    (source / "config.dump").write_text("{}")
    location = tmp_path / "c.tar"
    write_archive(source, location)
    assert location.stat().st_mode & 0o777 == 0o600
    with tarfile.open(location) as archive:
        assert archive.getnames() == ["checkpoint", "config.dump"]
    with pytest.raises(CheckpointFailed):
        write_archive(source, tmp_path / "missing" / "c.tar")


def test_manifest(tmp_path: Path) -> None:
    entry = ContainerEntry("web", "a" * 64, "sha256:1", "containers/web")
    manifest = PodManifest(VERSION, "pod", "ns", "uid", "runc", 5, (entry,))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    (tmp_path / "pod.json").write_text("{}")
    with pytest.raises(CheckpointUnreadable, match="version"):
        read_manifest(tmp_path)
    write_manifest(tmp_path, PodManifest(VERSION + 1, "p", "n", "u", "", 5, ()))
    with pytest.raises(CheckpointUnreadable, match="not 1"):
        read_manifest(tmp_path)
    out = ContainerEntry("web", "a", "i", "../../etc")
    write_manifest(tmp_path, PodManifest(VERSION, "p", "n", "u", "", 5, (out,)))
    with pytest.raises(CheckpointUnreadable, match="not inside"):
        read_manifest(tmp_path)
