"""Cgroups of the node itself, with real processes, crun and runc."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from runtime.v1 import api_pb2
from runtime.v1.api_pb2 import LinuxContainerResources
from triptych_dev.patience import PATIENCE
from triptych_runtime.cgroups import BadResources, Cgroup, CgroupFailed, CgroupManager, Driver, Mode, pods
from triptych_runtime.cgroups.monitors import Monitors
from triptych_runtime.stats import ContainerSubject, StatsCollector

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

MIB = 1 << 20


@pytest.fixture
def manager() -> CgroupManager:
    return CgroupManager.detect("cgroupfs")


@pytest.fixture
async def group(manager: CgroupManager) -> AsyncIterator[Cgroup]:
    """A fresh cgroup in all hierarchies, removed with what is in it."""
    path = f"/triptych-test-{secrets.token_hex(4)}"
    top = pods.make(manager.layout, path)
    # A cgroup for processes, unlike the one above, which has children with controllers.
    leaf = Cgroup.at(manager.layout, path + "/leaf")
    for directory in leaf.directories:
        os.mkdir(directory)
        pods.inherit_cpuset(manager.layout, directory)
    yield leaf
    with contextlib.suppress(CgroupFailed):
        await top.kill()
    await top.remove()


@pytest.fixture
def start(group: Cgroup) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process and puts it into the cgroup before it goes on."""
    children: list[subprocess.Popen[bytes]] = []

    def run(script: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(["/bin/sh", "-c", f"read go; {script}"], stdin=subprocess.PIPE)
        children.append(child)
        for directory in group.directories:
            Path(directory, "cgroup.procs").write_text(str(child.pid))
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.close()
        return child

    yield run
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.wait(10 * PATIENCE)


async def test_procs_kill_and_remove(group: Cgroup, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    child = start("trap '' TERM; sleep 1000 & sleep 1000 & wait")
    while len(group.procs()) < 3:
        await asyncio.sleep(0.01)
    assert child.pid in group.procs()
    await group.kill()
    assert group.procs() == []
    assert child.wait(5 * PATIENCE) == -signal.SIGKILL
    assert await group.remove()
    assert not group.exists()
    assert not await group.remove()


async def test_kill_wins_over_a_process_that_forks(
    group: Cgroup, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    start("while :; do (while :; do sleep 0.01; done) & sleep 0.005; done")
    await asyncio.sleep(0.2)
    await group.kill()
    assert group.procs() == []


async def test_remove_refuses_a_cgroup_in_use(
    group: Cgroup, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    start("exec sleep 1000")
    with pytest.raises(CgroupFailed, match="1 processes"):
        await group.remove(deadline=0.05)


async def test_kill_ends_what_is_frozen(
    group: Cgroup, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    child = start("sleep 1000")
    if "freezer" in group.v1:
        Path(group.v1["freezer"], "freezer.state").write_text("FROZEN")
    else:
        Path(group.directories[0], "cgroup.freeze").write_text("1")
    await group.kill()
    assert group.procs() == []
    assert child.wait(5 * PATIENCE) == -signal.SIGKILL


async def test_oom_kills_are_counted(group: Cgroup, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    manager = CgroupManager.detect("cgroupfs")
    assert group.oom_kills() == 0
    await manager.update(group.path, LinuxContainerResources(memory_limit_in_bytes=8 * MIB))
    child = start("""exec python3 -c 'x = b"x" * (64 << 20)'""")
    assert child.wait(30) != 0
    assert group.oom_kills() == 1
    await group.remove()
    assert group.oom_kills() is None


async def test_update_of_the_real_files(group: Cgroup, manager: CgroupManager) -> None:
    def read(controller: str, v1: str, v2: str) -> str:
        directory = group.directory(controller)
        return Path(directory or "", v2 if manager.mode is Mode.UNIFIED else v1).read_text().strip()

    for limit in (64 * MIB, 256 * MIB, 32 * MIB):
        resources = LinuxContainerResources(
            cpu_shares=2048,
            cpu_quota=50_000,
            cpu_period=100_000,
            memory_limit_in_bytes=limit,
            cpuset_cpus="0",
        )
        await manager.update(group.path, resources)
        assert read("memory", "memory.limit_in_bytes", "memory.max") == str(limit)
    assert read("cpu", "cpu.shares", "cpu.weight") in ("2048", "174")
    assert read("cpu", "cpu.cfs_quota_us", "cpu.max") in ("50000", "50000 100000")
    assert read("cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    await manager.update(group.path, LinuxContainerResources(cpu_quota=-1, memory_limit_in_bytes=-1))
    assert read("cpu", "cpu.cfs_quota_us", "cpu.max") in ("-1", "max 100000")

    bad = LinuxContainerResources(cpu_shares=512, cpuset_cpus="4000")
    with pytest.raises((BadResources, CgroupFailed), match=r"cpuset\.cpus"):
        await manager.update(group.path, bad)
    assert read("cpu", "cpu.shares", "cpu.weight") in ("2048", "174")
    assert read("cpuset", "cpuset.cpus", "cpuset.cpus") == "0"


async def test_pods_of_our_own(manager: CgroupManager) -> None:
    sandbox = secrets.token_hex(32)
    resources = LinuxContainerResources(memory_limit_in_bytes=100 * MIB)
    overhead = LinuxContainerResources(memory_limit_in_bytes=4 * MIB)
    parent = await manager.create_pod(sandbox, resources, overhead)
    try:
        assert parent == manager.default_parent(sandbox)
        assert await manager.create_pod(sandbox, resources, overhead) == parent
        pod = manager.resolve_parent(parent)
        name = "memory.max" if manager.mode is Mode.UNIFIED else "memory.limit_in_bytes"
        limit = Path(pod.directory("memory") or "", name)
        assert limit.read_text().strip() == str(104 * MIB)
        bigger = LinuxContainerResources(memory_limit_in_bytes=200 * MIB)
        await manager.update_pod(sandbox, bigger, overhead)
        assert limit.read_text().strip() == str(204 * MIB)
    finally:
        await manager.remove_pod(sandbox)
    assert not any(os.path.exists(d) for d in pod.directories)
    await manager.remove_pod(sandbox)


async def test_pods_that_come_while_others_go(manager: CgroupManager) -> None:
    """The last pod takes the directory of all pods with it, under the hands of whoever makes the next."""

    async def churn(number: int) -> None:
        for turn in range(15):
            name = f"{number:02}{turn:02}" + secrets.token_hex(30)
            parent = await manager.create_pod(name)
            assert manager.resolve_parent(parent).exists()
            await manager.remove_pod(name)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(churn(number))


async def test_adopt(manager: CgroupManager) -> None:
    sandbox = secrets.token_hex(32)
    parent = await manager.create_pod(sandbox)
    child = await asyncio.create_subprocess_exec("sleep", "1000")
    try:
        path = manager.container_path(parent, sandbox)
        await manager.adopt(child.pid, path)
        assert manager.resolve(path).procs() == [child.pid]
        assert Cgroup.of_process(manager.layout, child.pid).path == path
        assert child.pid in manager.resolve_parent(parent).procs()
    finally:
        child.kill()
        await child.wait()
        await manager.remove_pod(sandbox)


async def test_monitors_leave_the_daemons_cgroup(manager: CgroupManager) -> None:
    daemon = Cgroup.of_process(manager.layout, os.getpid())
    group = f"/triptych-test-monitors-{secrets.token_hex(4)}"
    monitors = Monitors(manager.layout, Driver.CGROUPFS, group)
    child = await asyncio.create_subprocess_exec("sleep", "1000")
    try:
        await monitors.place(child.pid)
        placed = Cgroup.of_process(manager.layout, child.pid)
        mounts = {os.path.normpath(m) for m in manager.layout.hierarchies}
        for name in placed.v1.keys() & daemon.v1.keys():
            if os.path.normpath(daemon.v1[name]) not in mounts:
                assert placed.v1[name].endswith(group)
    finally:
        child.kill()
        await child.wait()
        monitors.remove()
    assert not any(os.path.exists(d) for d in Cgroup.at(manager.layout, group).directories)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
async def test_a_container_of_an_oci_runtime(runtime: str, manager: CgroupManager, tmp_path: Path) -> None:
    if shutil.which(runtime) is None or not os.path.exists("/bin/busybox"):
        pytest.skip(f"{runtime} or busybox is not installed")
    sandbox, container = secrets.token_hex(32), secrets.token_hex(32)
    rootfs = tmp_path / "rootfs"
    for name in ("bin", "proc", "dev", "sys"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    subprocess.run([runtime, "spec"], cwd=tmp_path, check=True)
    spec = json.loads((tmp_path / "config.json").read_text())
    parent = await manager.create_pod(sandbox)
    spec["process"]["terminal"] = False
    spec["process"]["args"] = ["/bin/busybox", "sh", "-c", "while :; do :; done"]
    spec["linux"]["cgroupsPath"] = manager.container_path(parent, container)
    (tmp_path / "config.json").write_text(json.dumps(spec))
    base = [runtime, "--root", str(tmp_path / "state")]
    if manager.driver is Driver.SYSTEMD:
        base.append("--systemd-cgroup")
    path = spec["linux"]["cgroupsPath"]
    try:
        subprocess.run([*base, "run", "-d", container], cwd=tmp_path, check=True, stdin=subprocess.DEVNULL)
        done = subprocess.run([*base, "state", container], check=True, capture_output=True)
        pid = json.loads(done.stdout)["pid"]
        group = manager.resolve(path)
        assert pid in group.procs()
        await manager.update(path, LinuxContainerResources(memory_limit_in_bytes=64 * MIB))
        await check_stats(ContainerSubject(api_pb2.ContainerAttributes(id=container), group, pid=pid))
        await group.kill()
    finally:
        subprocess.run([*base, "delete", "-f", container], check=True)
        await manager.remove_pod(sandbox)
    assert not any(os.path.exists(d) for d in manager.resolve_parent(parent).directories)


async def check_stats(subject: ContainerSubject) -> None:
    """Statistics of a container that is busy and has a limit of 64 MiB."""
    async with asyncio.TaskGroup() as tasks:
        collector = StatsCollector(None, tasks)
        first = (await collector.container_stats([subject]))[0]
        await asyncio.sleep(0.3)
        second = (await collector.container_stats([subject]))[0]
    assert not first.cpu.HasField("usage_nano_cores")
    # A busy loop: some of one core.
    assert 10_000_000 < second.cpu.usage_nano_cores.value < 1_200_000_000
    assert second.cpu.usage_core_nano_seconds.value > first.cpu.usage_core_nano_seconds.value
    assert 0 < second.memory.working_set_bytes.value <= second.memory.usage_bytes.value
    assert second.memory.available_bytes.value == 64 * MIB - second.memory.working_set_bytes.value
    assert second.memory.page_faults.value > 0
    if second.HasField("swap"):
        assert second.swap.swap_usage_bytes.value == 0
        assert second.swap.swap_available_bytes.value == 0
