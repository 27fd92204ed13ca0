"""Planned and transactional writes, on trees of plain files in place of control files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime.v1.api_pb2 import HugepageLimit, LinuxContainerResources
from triptych_runtime.cgroups import (
    BadResources,
    Cgroup,
    CgroupFailed,
    Layout,
    MissingController,
    Mode,
    transaction,
)
from triptych_runtime.cgroups.plan import plan
from triptych_runtime.cgroups.pods import pod_limits

Tree = Callable[[dict[str, str]], Cgroup]


@pytest.fixture
def v2(tmp_path: Path) -> Tree:
    """A v2 cgroup of given files."""

    def build(files: dict[str, str]) -> Cgroup:
        group = tmp_path / "pod"
        group.mkdir()
        for name, text in files.items():
            (group / name).write_text(text)
        return Cgroup.at(Layout(Mode.UNIFIED, {}, tmp_path, {}), "/pod")

    return build


@pytest.fixture
def v1(tmp_path: Path) -> Tree:
    """A v1 cgroup of given files, in hierarchies named by the first word of each file."""

    def build(files: dict[str, str]) -> Cgroup:
        names = ("cpu", "memory", "cpuset", "hugetlb", "freezer")
        for name in names:
            (tmp_path / name / "pod").mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / name.split(".")[0] / "pod" / name).write_text(text)
        return Cgroup.at(Layout(Mode.LEGACY, {n: tmp_path / n for n in names}, None, {}), "/pod")

    return build


def planned(group: Cgroup, **fields: object) -> dict[str, bytes]:
    return {w.name: w.value for w in plan(group, LinuxContainerResources(**fields))}  # type: ignore[arg-type]


V2 = {
    "cpu.max": "max 100000\n",
    "cpu.weight": "100\n",
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
    "cpuset.cpus": "\n",
    "hugetlb.2MB.max": "max\n",
    "hugetlb.2MB.rsvd.max": "max\n",
    "memory.high": "max\n",
    "io.max": "",
}
V1 = {
    "cpu.shares": "1024\n",
    "cpu.cfs_period_us": "100000\n",
    "cpu.cfs_quota_us": "-1\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.memsw.limit_in_bytes": "9223372036854771712\n",
    "cpuset.cpus": "0-1\n",
    "hugetlb.2MB.limit_in_bytes": "9223372036854771712\n",
}


def test_v2_plan(v2: Tree) -> None:
    group = v2(V2)
    assert planned(group) == {}
    assert planned(group, cpu_shares=1024, cpu_quota=50000) == {
        "cpu.weight": b"100",
        "cpu.max": b"50000 100000",
    }
    assert planned(group, cpu_period=20000) == {"cpu.max": b"max 20000"}
    assert planned(group, cpu_quota=-1) == {"cpu.max": b"max 100000"}
    # No word about swap: none for the container.
    assert planned(group, memory_limit_in_bytes=1000) == {"memory.max": b"1000", "memory.swap.max": b"0"}
    assert planned(group, memory_limit_in_bytes=1000, memory_swap_limit_in_bytes=1500) == {
        "memory.max": b"1000",
        "memory.swap.max": b"500",
    }
    assert planned(group, memory_limit_in_bytes=-1) == {"memory.max": b"max", "memory.swap.max": b"max"}
    assert planned(group, memory_swap_limit_in_bytes=-1) == {"memory.swap.max": b"max"}
    limits = [HugepageLimit(page_size="2MB", limit=4096), HugepageLimit(page_size="1GB", limit=0)]
    assert planned(group, hugepage_limits=limits) == {
        "hugetlb.2MB.max": b"4096",
        "hugetlb.2MB.rsvd.max": b"4096",
    }
    assert planned(group, unified={"memory.high": "5000"}) == {"memory.high": b"5000"}


def test_v2_swap_limit_against_the_memory_limit_in_force(v2: Tree) -> None:
    group = v2({**V2, "memory.max": "1000\n"})
    assert planned(group, memory_swap_limit_in_bytes=1200) == {"memory.swap.max": b"200"}
    with pytest.raises(BadResources, match="memory_swap_limit_in_bytes 500"):
        planned(group, memory_swap_limit_in_bytes=500)


def test_v2_io_max_is_one_write_a_device(v2: Tree) -> None:
    resources = LinuxContainerResources(unified={"io.max": "8:0 rbps=1\n8:16 rbps=2"})
    assert [w.value for w in plan(v2(V2), resources)] == [b"8:0 rbps=1", b"8:16 rbps=2"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unified": {"memory.nothing": "1"}}, "no memory.nothing"),
        ({"unified": {"../cpu.max": "1"}}, "not the name"),
        ({"unified": {"cgroup.kill": "1"}}, "not the name"),
        ({"hugepage_limits": [HugepageLimit(page_size="1GB", limit=1)]}, "no huge pages of 1GB"),
        ({"hugepage_limits": [HugepageLimit(page_size="2 MB", limit=1)]}, "not a page size"),
        ({"cpu_shares": -5}, "negative"),
    ],
)
def test_v2_refusals(v2: Tree, fields: dict[str, object], message: str) -> None:
    missing = message.startswith("no ")
    with pytest.raises(MissingController if missing else BadResources, match=message):
        planned(v2(V2), **fields)


def test_v1_plan(v1: Tree) -> None:
    group = v1(V1)
    assert planned(group, cpu_shares=512, cpu_quota=50000, cpu_period=100000, cpuset_cpus="0") == {
        "cpu.shares": b"512",
        "cpu.cfs_period_us": b"100000",
        "cpu.cfs_quota_us": b"50000",
        "cpuset.cpus": b"0",
    }
    assert planned(group, memory_limit_in_bytes=1000) == {
        "memory.limit_in_bytes": b"1000",
        "memory.memsw.limit_in_bytes": b"1000",
    }
    limits = [HugepageLimit(page_size="2MB", limit=4096)]
    assert planned(group, hugepage_limits=limits) == {"hugetlb.2MB.limit_in_bytes": b"4096"}
    with pytest.raises(MissingController, match="need cgroup v2"):
        planned(group, unified={"memory.high": "1"})
    with pytest.raises(BadResources, match="less than"):
        planned(group, memory_limit_in_bytes=1000, memory_swap_limit_in_bytes=500)


def test_a_missing_controller_is_named(tmp_path: Path) -> None:
    group = Cgroup.at(Layout(Mode.LEGACY, {"memory": tmp_path}, None, {}), "/")
    with pytest.raises(MissingController, match="cpu_shares: this node has no cpu"):
        planned(group, cpu_shares=5)


class Kernel:
    """Stands in for `write`: refuses what a rule says, else writes the file."""

    def __init__(self, refuse: Callable[[str, bytes, Path], int]) -> None:
        self.refuse = refuse
        self.log: list[tuple[str, bytes]] = []

    def write(self, directory: str, name: str, value: bytes) -> None:
        code = self.refuse(name, value, Path(directory))
        if code:
            raise OSError(code, os.strerror(code), f"{directory}/{name}")
        self.log.append((name, value))
        (Path(directory) / name).write_bytes(value)


def test_a_failure_restores_what_was_changed(v2: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    group = v2(V2)
    kernel = Kernel(lambda name, value, _: errno.EINVAL if name == "memory.swap.max" else 0)
    monkeypatch.setattr(transaction, "write", kernel.write)
    resources = LinuxContainerResources(cpu_quota=50000, memory_limit_in_bytes=4096)
    with pytest.raises(BadResources, match=r"memory\.swap\.max = '0'"):
        transaction.apply(group, plan(group, resources))
    assert group.unified is not None
    assert (Path(group.unified) / "cpu.max").read_text() == "max 100000"
    assert (Path(group.unified) / "memory.max").read_text() == "max"


def test_dependent_writes_find_their_order(v1: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    group = v1({**V1, "memory.limit_in_bytes": "1000\n", "memory.memsw.limit_in_bytes": "1000\n"})

    def refuse(name: str, value: bytes, directory: Path) -> int:
        if name == "memory.limit_in_bytes":
            over = int(value) > int((directory / "memory.memsw.limit_in_bytes").read_bytes())
            return errno.EINVAL if over else 0
        return 0

    kernel = Kernel(refuse)
    monkeypatch.setattr(transaction, "write", kernel.write)
    resources = LinuxContainerResources(memory_limit_in_bytes=5000)
    transaction.apply(group, plan(group, resources))
    assert kernel.log == [("memory.memsw.limit_in_bytes", b"5000"), ("memory.limit_in_bytes", b"5000")]


def test_revert(v2: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "write", Kernel(lambda *_: 0).write)
    group = v2(V2)
    undo = transaction.apply(group, plan(group, LinuxContainerResources(cpu_shares=2)))
    weight = Path(group.unified or "") / "cpu.weight"
    assert weight.read_bytes() == b"1"
    transaction.revert(group, undo)
    assert weight.read_bytes() == b"100"


def test_a_cgroup_that_is_gone(v2: Tree) -> None:
    group = v2({})
    with pytest.raises(CgroupFailed, match=r"cpu\.weight"):
        transaction.apply(group, plan(group, LinuxContainerResources(cpu_shares=5)))


def test_pod_limits_add_the_overhead_to_limits_only() -> None:
    resources = LinuxContainerResources(cpu_shares=100, cpu_quota=50000, memory_limit_in_bytes=1000)
    overhead = LinuxContainerResources(
        cpu_shares=10, cpu_quota=10000, cpu_period=200000, memory_limit_in_bytes=24
    )
    total = pod_limits(resources, overhead)
    assert (total.cpu_shares, total.cpu_quota, total.memory_limit_in_bytes) == (110, 55000, 1024)
    assert pod_limits(None, overhead) == LinuxContainerResources()
    assert pod_limits(resources, None) == resources
