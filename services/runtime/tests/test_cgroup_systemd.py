"""The systemd cgroup driver, with a real systemd as init (in the machine of `./dev test node`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest
from runtime.v1.api_pb2 import LinuxContainerResources
from triptych_linux import mounts
from triptych_runtime.cgroups import BadParent, Cgroup, CgroupFailed, CgroupManager, Driver, Mode, systemd
from triptych_runtime.cgroups.monitors import Monitors

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="systemd is not the init here"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

MIB = 1 << 20


@pytest.fixture
def manager() -> CgroupManager:
    found = CgroupManager.detect()
    assert found.driver is Driver.SYSTEMD
    return found


def show(unit: str, name: str) -> str:
    done = subprocess.run(
        ["systemctl", "show", "-P", name, unit], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def limits(group: Cgroup) -> tuple[str, ...]:
    names = ("memory.max", "memory.swap.max", "cpu.max", "pids.max", "cpuset.cpus")
    return tuple(Path(group.unified or "", name).read_text().strip() for name in names)


async def test_pod_slices(manager: CgroupManager) -> None:
    sandbox = secrets.token_hex(32)
    resources = LinuxContainerResources(memory_limit_in_bytes=100 * MIB, cpu_shares=1024, cpu_quota=50_000)
    parent = await manager.create_pod(sandbox, resources)
    pod = manager.resolve_parent(parent)
    try:
        assert pod.path == f"/triptych.slice/{parent}"
        assert pod.exists()
        assert await manager.create_pod(sandbox, resources) == parent
        assert show(parent, "MemoryMax") == str(100 * MIB)
        assert show(parent, "CPUWeight") == "100"
        assert show(parent, "CPUQuotaPerSecUSec") == "500ms"
        bigger = LinuxContainerResources(memory_limit_in_bytes=200 * MIB)
        await manager.update_pod(sandbox, bigger, LinuxContainerResources(memory_limit_in_bytes=8 * MIB))
        assert show(parent, "MemoryMax") == str(208 * MIB)
        assert Path(pod.directory("memory") or "", "memory.max").read_text().strip() == str(208 * MIB)
    finally:
        await manager.remove_pod(sandbox)
    assert not pod.exists()
    await manager.remove_pod(sandbox)


async def test_monitors_share_one_scope(manager: CgroupManager) -> None:
    monitors = Monitors(manager.layout, Driver.SYSTEMD)
    children = [await asyncio.create_subprocess_exec("sleep", "1000") for _ in range(3)]
    try:
        await asyncio.gather(*(monitors.place(child.pid) for child in children))
        places = {Cgroup.of_process(manager.layout, child.pid).path for child in children}
        assert places == {"/triptych.slice/triptych-monitors.scope"}
        for child in children:
            child.kill()
            await child.wait()
        # Empty, the scope goes; the next monitor gets a new one.
        group = Cgroup.at(manager.layout, "/triptych.slice/triptych-monitors.scope")
        for _ in range(500):
            if not group.exists():
                break
            await asyncio.sleep(0.01)
        assert not group.exists()
        last = await asyncio.create_subprocess_exec("sleep", "1000")
        children.append(last)
        await monitors.place(last.pid)
        assert last.pid in group.procs()
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def test_adopt(manager: CgroupManager) -> None:
    sandbox = secrets.token_hex(32)
    parent = await manager.create_pod(sandbox)
    child = await asyncio.create_subprocess_exec("sleep", "1000")
    try:
        path = manager.container_path(parent, sandbox)
        await manager.adopt(child.pid, path)
        assert manager.resolve(path).procs() == [child.pid]
    finally:
        child.kill()
        await child.wait()
        await manager.remove_pod(sandbox)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
async def test_a_container_in_a_slice(runtime: str, manager: CgroupManager, tmp_path: Path) -> None:
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    sandbox, container = secrets.token_hex(32), secrets.token_hex(32)
    for name in ("bin", "proc", "dev", "sys"):
        (tmp_path / "rootfs" / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tmp_path / "rootfs/bin/busybox")
    subprocess.run([runtime, "spec"], cwd=tmp_path, check=True)
    spec = json.loads((tmp_path / "config.json").read_text())
    parent = await manager.create_pod(sandbox)
    path = manager.container_path(parent, container)
    spec["process"] |= {"terminal": False, "args": ["/bin/busybox", "sleep", "1000"]}
    spec["linux"]["cgroupsPath"] = path
    first = LinuxContainerResources(memory_limit_in_bytes=32 * MIB, cpu_quota=50_000, cpuset_cpus="0")
    spec["linux"]["resources"] |= {
        "memory": {"limit": 32 * MIB, "swap": 32 * MIB},
        "cpu": {"quota": 50_000, "period": 100_000, "cpus": "0"},
    }
    spec["annotations"] = manager.spec_annotations(first)
    (tmp_path / "config.json").write_text(json.dumps(spec))
    base = [runtime, "--root", str(tmp_path / "state"), "--systemd-cgroup"]
    unit = f"triptych-{container}.scope"
    try:
        subprocess.run([*base, "run", "-d", container], cwd=tmp_path, check=True, stdin=subprocess.DEVNULL)
        done = subprocess.run([*base, "state", container], check=True, capture_output=True)
        pid = json.loads(done.stdout)["pid"]
        group = manager.resolve(path)
        assert group.procs() == [pid]
        assert group.path == f"/triptych.slice/{parent}/{unit}"

        assert limits(group) == (str(32 * MIB), "0", "50000 100000", "max", "0")
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        assert limits(group) == (str(32 * MIB), "0", "50000 100000", "max", "0")

        more = LinuxContainerResources(memory_limit_in_bytes=64 * MIB, cpu_shares=2048, cpuset_cpus="0-1")
        await manager.update(path, more)
        assert show(unit, "MemoryMax") == str(64 * MIB)
        # What systemd applies again is what was asked for.
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        assert limits(group) == (str(64 * MIB), "0", "50000 100000", "max", "0-1")
        assert show(unit, "CPUWeight" if manager.mode is Mode.UNIFIED else "CPUShares") in ("174", "2048")

        await group.kill()
        assert group.procs() == []
    finally:
        subprocess.run([*base, "delete", "-f", container], check=True)
        await manager.remove_pod(sandbox)
    assert not manager.resolve_parent(parent).exists()


async def test_update_is_undone_when_systemd_refuses(manager: CgroupManager) -> None:
    sandbox = secrets.token_hex(32)
    parent = await manager.create_pod(sandbox, LinuxContainerResources(memory_limit_in_bytes=64 * MIB))
    limit = Path(manager.resolve_parent(parent).directory("memory") or "", "memory.max")
    try:
        unit = "triptych-nosuch.scope"
        with pytest.raises(CgroupFailed, match=unit):
            await manager._update(
                manager.resolve_parent(parent), unit, LinuxContainerResources(memory_limit_in_bytes=32 * MIB)
            )
        assert limit.read_text().strip() == str(64 * MIB)
    finally:
        await manager.remove_pod(sandbox)


async def test_stopping_an_unknown_unit_is_no_error() -> None:
    await systemd.stop("triptych-nosuch.slice")


def test_parents_must_be_slices(manager: CgroupManager) -> None:
    with pytest.raises(BadParent, match="not a slice"):
        manager.check_parent("/kubepods/pod1")


def test_cheap_moves_keep_the_other_mount_options(manager: CgroupManager) -> None:
    if manager.layout.unified is None:
        pytest.skip("no v2 hierarchy")
    before = mounts.mount_of(manager.layout.unified)
    assert manager.favor_dynamic_changes()
    assert manager.favors_dynamic_changes()
    after = mounts.mount_of(manager.layout.unified)
    assert set(after.super_options.split(",")) == {*before.super_options.split(","), "favordynmods"}
    assert after.options == before.options
