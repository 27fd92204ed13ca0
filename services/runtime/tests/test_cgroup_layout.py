"""Detection of the node's cgroup layout from a mount table."""

from __future__ import annotations

from pathlib import Path

import pytest
from triptych_linux.mounts import MountEntry
from triptych_runtime.cgroups import Cgroup, CgroupManager, Driver, Layout, Mode, NoCgroups
from triptych_runtime.cgroups import manager as manager_module


def entry(fstype: str, where: str, options: str, root: str = "/") -> MountEntry:
    return MountEntry(1, 0, "0:1", root, where, "rw", (), fstype, fstype, options)


LEGACY = [
    entry("tmpfs", "/sys/fs/cgroup", "rw"),
    entry("cgroup", "/sys/fs/cgroup/cpu,cpuacct", "rw,cpu,cpuacct"),
    entry("cgroup", "/sys/fs/cgroup/memory", "rw,memory"),
    entry("cgroup", "/sys/fs/cgroup/systemd", "rw,xattr,name=systemd"),
]


def test_legacy() -> None:
    layout = Layout.of(LEGACY)
    assert layout.mode is Mode.LEGACY
    assert layout.v1["cpu"] == layout.v1["cpuacct"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert len(layout.hierarchies) == 3
    group = Cgroup.at(layout, "/a/b")
    assert group.directory("memory") == "/sys/fs/cgroup/memory/a/b"
    assert group.directory("cpuset") is None
    assert len(group.directories) == 3
    assert group.unified is None


def test_hybrid() -> None:
    layout = Layout.of([*LEGACY, entry("cgroup2", "/sys/fs/cgroup/unified", "rw,nsdelegate")])
    assert layout.mode is Mode.HYBRID
    group = Cgroup.at(layout, "/a")
    assert group.unified == "/sys/fs/cgroup/unified/a"
    assert group.directory("memory") == "/sys/fs/cgroup/memory/a"


def test_unified() -> None:
    layout = Layout.of([entry("cgroup2", "/sys/fs/cgroup", "rw,nsdelegate,memory_recursiveprot")])
    assert layout.mode is Mode.UNIFIED
    group = Cgroup.at(layout, "/a/b")
    assert group.directory("memory") == group.directory("freezer") == "/sys/fs/cgroup/a/b"
    assert group.directories == ("/sys/fs/cgroup/a/b",)


def test_unified_beside_the_named_hierarchy_only() -> None:
    mounts = [
        entry("cgroup", "/sys/fs/cgroup/systemd", "rw,name=systemd"),
        entry("cgroup2", "/sys/fs/cgroup", "rw"),
    ]
    assert Layout.of(mounts).mode is Mode.UNIFIED


def test_nothing_mounted() -> None:
    with pytest.raises(NoCgroups):
        Layout.of([entry("tmpfs", "/tmp", "rw")])


def test_root_of_a_partial_mount_is_stripped() -> None:
    layout = Layout.of([entry("cgroup2", "/sys/fs/cgroup", "rw", root="/docker/abc")])
    assert layout.strip_root(Path("/sys/fs/cgroup"), "/docker/abc/x") == "/x"
    assert layout.strip_root(Path("/sys/fs/cgroup"), "/docker/abcd") == "/docker/abcd"


def test_driver_follows_the_init(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Layout, "detect", classmethod(lambda cls: Layout.of(LEGACY)))
    monkeypatch.setattr(manager_module, "_SYSTEMD_RUNS", tmp_path / "no")
    assert CgroupManager.detect("auto").driver is Driver.CGROUPFS
    with pytest.raises(NoCgroups, match="not the init"):
        CgroupManager.detect("systemd")
    monkeypatch.setattr(manager_module, "_SYSTEMD_RUNS", tmp_path)
    assert CgroupManager.detect("auto").driver is Driver.SYSTEMD
    assert CgroupManager.detect("systemd").driver is Driver.SYSTEMD
    assert CgroupManager.detect("cgroupfs").driver is Driver.CGROUPFS
