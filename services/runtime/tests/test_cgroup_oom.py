"""Telling which container of a pod was hit by the OOM killer, on a fake cgroup v2."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime.v1.api_pb2 import LinuxContainerResources
from triptych_runtime.cgroups import BadResources, Cgroup, CgroupManager, Driver, Layout, Mode, arithmetic
from triptych_runtime.cgroups.oom import OomLedger

Kill = Callable[[str], None]


@pytest.fixture
def ledger(tmp_path: Path) -> OomLedger:
    layout = Layout(Mode.UNIFIED, {}, tmp_path, {})
    for name in ("pod", "pod/a", "pod/b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.events").write_text("max 9\noom_kill 0\n")
    return OomLedger(lambda path: Cgroup.at(layout, path), lambda path: Cgroup.at(layout, path))


@pytest.fixture
def kill(tmp_path: Path) -> Kill:
    """The kernel: counts a kill in a container and in its pod."""

    def run(container: str) -> None:
        for name in ("pod", f"pod/{container}"):
            file = tmp_path / name / "memory.events"
            count = int(file.read_text().split()[-1])
            file.write_text(f"max 9\noom_kill {count + 1}\n")

    return run


def test_while_the_cgroup_is_there_it_tells(ledger: OomLedger, kill: Kill) -> None:
    ledger.add("/pod/a")
    ledger.add("/pod/b")
    kill("a")
    assert ledger.take("/pod/a") == 1
    assert ledger.take("/pod/b") == 0


def test_the_pod_tells_of_a_container_that_is_gone(ledger: OomLedger, kill: Kill, tmp_path: Path) -> None:
    ledger.add("/pod/a")
    ledger.add("/pod/b")
    kill("b")
    kill("a")
    shutil.rmtree(tmp_path / "pod/a")
    assert ledger.take("/pod/a") == 1
    # The next one in the same pod is not blamed for it.
    (tmp_path / "pod/a").mkdir()
    (tmp_path / "pod/a/memory.events").write_text("oom_kill 0\n")
    ledger.add("/pod/a")
    shutil.rmtree(tmp_path / "pod/a")
    assert ledger.take("/pod/a") == 0
    assert ledger.take("/pod/b") == 1


def test_two_that_are_gone_at_once(ledger: OomLedger, kill: Kill, tmp_path: Path) -> None:
    ledger.add("/pod/a")
    ledger.add("/pod/b")
    kill("a")
    kill("b")
    shutil.rmtree(tmp_path / "pod/a")
    shutil.rmtree(tmp_path / "pod/b")
    assert ledger.take("/pod/a") == 1
    assert ledger.take("/pod/b") == 1


def test_kills_before_this_daemon_are_not_counted_twice(
    ledger: OomLedger, kill: Kill, tmp_path: Path
) -> None:
    kill("a")
    kill("b")
    ledger.add("/pod/b")
    shutil.rmtree(tmp_path / "pod/b")
    # Whoever asks: one kill was b's own.
    assert ledger.take("/pod/b") == 1


def test_nobody_can_tell(ledger: OomLedger, tmp_path: Path) -> None:
    ledger.add("/pod/a")
    shutil.rmtree(tmp_path / "pod")
    assert ledger.take("/pod/a") is None
    assert ledger.take("/pod/a") is None


def test_annotations_of_a_scope() -> None:
    manager = CgroupManager(Layout(Mode.UNIFIED, {}, Path("/sys/fs/cgroup"), {}), Driver.SYSTEMD)
    none = manager.spec_annotations(None)
    assert none == {
        "run.oci.systemd.subgroup": "",
        "org.systemd.property.TasksMax": f"uint64 {(1 << 64) - 1}",
    }
    resources = LinuxContainerResources(
        cpu_shares=512,
        cpu_quota=50_000,
        memory_limit_in_bytes=1000,
        cpuset_cpus="0",
        unified={"pids.max": "7"},
    )
    found = manager.spec_annotations(resources)
    assert found["org.systemd.property.MemoryMax"] == "uint64 1000"
    assert found["org.systemd.property.MemorySwapMax"] == "uint64 0"
    assert found["org.systemd.property.CPUQuotaPerSecUSec"] == "uint64 500000"
    assert found["org.systemd.property.TasksMax"] == "uint64 7"
    assert not any("CPUWeight" in key or "AllowedCPUs" in key for key in found)
    plain = CgroupManager(Layout(Mode.UNIFIED, {}, Path("/sys/fs/cgroup"), {}), Driver.CGROUPFS)
    assert plain.spec_annotations(resources) == {}


@pytest.mark.parametrize(
    ("text", "mask"), [("0", b"\x01"), ("0-2,8", b"\x07\x01"), ("9", b"\x00\x02"), ("3,1", b"\x0a")]
)
def test_cpu_mask(text: str, mask: bytes) -> None:
    assert arithmetic.cpu_mask(text) == mask


def test_cpu_mask_of_nonsense() -> None:
    with pytest.raises(BadResources, match="cpuset"):
        arithmetic.cpu_mask("0-x")
