"""What an uninstallation leaves and tells, on a root that is a directory; a start without nftables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from triptych_dev.node import UninstallOptions, manager, uninstall
from triptych_dev.node.manifest import Kind, Manifest
from triptych_dev.node.places import CHECKOUT, inside
from triptych_dev.node.uninstall import left_over
from triptych_linux import mounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root with nothing but configuration, whose images are on another disk."""
    record = Manifest(tmp_path)
    record.write(CHECKOUT.config / "image.toml", b'root = "/data/images"\n', Kind.CONFIG)
    record.write(CHECKOUT.config / "runtime.toml", b'root = "/var/lib/triptych/pods"\n', Kind.CONFIG)
    record.save(CHECKOUT.manifest, "1", CHECKOUT.prefix)
    drop_in = inside(tmp_path, CHECKOUT.config) / "image.toml.d/10-site.toml"
    drop_in.parent.mkdir()
    drop_in.write_text('rootfs_root = "/layers"\n')
    for directory in ("data/images", "layers", "var/lib/triptych/pods"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


def test_directories_elsewhere_are_named_and_not_removed(installed: Path) -> None:
    left = uninstall(UninstallOptions(root=installed), lambda step: None)
    assert [line.partition(";")[0] for line in left] == [
        "directory /data/images, root of image.toml",
        "directory /layers, rootfs_root of image.toml",
    ]
    assert (installed / "data/images").is_dir() and (installed / "layers").is_dir()
    assert not (installed / "var/lib/triptych").exists()
    assert not (installed / "etc/triptych").exists()


def test_directories_elsewhere_that_are_gone_are_not_left(installed: Path) -> None:
    (installed / "data/images").rmdir()
    (installed / "layers").rmdir()
    assert uninstall(UninstallOptions(root=installed), lambda step: None) == []


def test_data_that_is_to_be_kept_is_not_left(installed: Path) -> None:
    assert uninstall(UninstallOptions(root=installed, keep_data=True), lambda step: None) == []


def test_an_operators_disk_is_not_left_and_what_is_mounted_in_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = ("/", "/data/images", "/data/images/layers", "/data/images/rootfs/c/merged", "/data/other")
    table = [replace(mounts.mount_of("/"), mount_point=point) for point in points]
    monkeypatch.setattr(mounts, "mount_table", lambda: table)
    options = UninstallOptions(places=replace(CHECKOUT, units=tmp_path), keep_config=True, keep_data=True)
    left = left_over(options, [Path("/data/images"), Path("/data/images/layers")])
    assert [line for line in left if line.startswith("mount ")] == ["mount /data/images/rootfs/c/merged"]


@pytest.fixture
def disk(installed: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An operator's disk at a directory of the daemons, with a mount of theirs in it."""
    disk = inside(installed, Path(request.param))
    disk.mkdir(parents=True, exist_ok=True)
    mounts.mount("disk", disk, "tmpfs")
    ours = disk / "ns"
    ours.mkdir()
    mounts.mount("ours", ours, "tmpfs")
    yield disk
    mounts.umount_below(installed)


@pytest.mark.integration
@pytest.mark.parametrize("disk", ["/var/lib/triptych", "/var/lib/triptych/pods"], indirect=True)
def test_an_operators_disk_is_emptied_and_stays_mounted(installed: Path, disk: Path) -> None:
    (installed / "var/lib/triptych/state.db").touch()
    left = uninstall(UninstallOptions(root=installed), lambda step: None)
    assert f"mount /{disk.relative_to(installed)}; it was not triptych that mounted it" in left
    assert mounts.mount_of(disk).source == "disk"
    assert list(disk.iterdir()) == []
    assert [path for path in (installed / "var/lib/triptych").iterdir() if path != disk] == []


def test_a_node_without_nftables_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = tmp_path / "done"
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        "#!/bin/sh\n"
        '[ "$1" != list-units ] || { echo triptych-streaming@2.service loaded active running; exit; }\n'
        f'case "$*" in *{manager.NAT}*) echo status=203/EXEC >&2; exit 1 ;; esac\n'
        f'echo "$*" >>{done}\n'
    )
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    told: list[str] = []
    manager.start(told.append)
    *_, daemons, instances = done.read_text().splitlines()
    assert daemons == f"restart {' '.join(manager.SERVICES)}"
    assert instances == "try-restart triptych-streaming@2.service", "an upgrade is of all instances"
    assert len(told) == 1 and told[0].startswith("pods will reach nothing beyond this node: ")
