"""What only cgroup v2 shows: unified keys, swap, pressure, group kills, and limits that change."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.vm.inside import CGROUPS, MIB, Node, eventually, systemctl

EATER = "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done"
SWAPFILE = Path("/var/lib/triptych-node/swap")

Made = tuple[str, str, Path]
"""Sandbox, container and its cgroup."""


@pytest.fixture(params=["crun", "runc"])
def started(request: pytest.FixtureRequest, node: Node) -> Iterator[Callable[..., Made]]:
    """Starts a container with resources in a pod of a client without cgroups, with each OCI runtime."""
    sandboxes: list[str] = []

    def start(resources: cri.LinuxContainerResources, command: tuple[str, ...] | None = None) -> Made:
        def change(config: cri.ContainerConfig) -> None:
            config.linux.resources.CopyFrom(resources)
            if command is not None:
                config.command[:] = command

        sandbox = node.run_pod("limited", handler=request.param)
        sandboxes.append(sandbox[0])
        container = node.run_container(sandbox, "main", change=change)
        scope = f"triptych.slice/triptych-{sandbox[0]}.slice/triptych-{container}.scope"
        return sandbox[0], container, CGROUPS / scope

    yield start
    for sandbox in sandboxes:
        node.remove_pod(sandbox)


def value(group: Path, name: str) -> str:
    """A control file."""
    return (group / name).read_text().strip()


@pytest.fixture
def swap() -> Iterator[None]:
    """Swap space."""
    with SWAPFILE.open("wb") as file:
        for _ in range(192):
            file.write(bytes(MIB))
    SWAPFILE.chmod(0o600)
    subprocess.run(["mkswap", SWAPFILE], check=True, capture_output=True)
    subprocess.run(["swapon", SWAPFILE], check=True)
    yield
    subprocess.run(["swapoff", SWAPFILE], check=True)
    SWAPFILE.unlink()


def test_unified_keys_last(node: Node, started: Callable[..., Made]) -> None:
    """Also memory.oom.group, which systemd 252 clears: the daemon sets it again."""
    unified = {
        "memory.high": str(48 * MIB),
        "memory.low": str(8 * MIB),
        "memory.oom.group": "1",
        "pids.max": "99",
    }
    _, container, group = started(
        cri.LinuxContainerResources(memory_limit_in_bytes=64 * MIB, unified=unified)
    )

    def lasting() -> bool:
        return {name: value(group, name) for name in unified} == unified

    assert lasting()
    systemctl("daemon-reload")
    eventually(lasting)
    change = cri.LinuxContainerResources(cpu_shares=2048)
    request = cri.UpdateContainerResourcesRequest(container_id=container, linux=change)
    node.call("UpdateContainerResources", request)
    eventually(lasting)
    assert value(group, "memory.max") == str(64 * MIB)
    off = cri.LinuxContainerResources(unified={"memory.oom.group": "0"})
    node.call(
        "UpdateContainerResources", cri.UpdateContainerResourcesRequest(container_id=container, linux=off)
    )
    assert value(group, "memory.oom.group") == "0"


def test_a_group_is_killed_together(node: Node, started: Callable[..., Made]) -> None:
    """memory.oom.group: a child runs out of memory and the whole container ends, as kubelets want it."""
    resources = cri.LinuxContainerResources(
        memory_limit_in_bytes=24 * MIB, unified={"memory.oom.group": "1"}
    )
    _, container, _ = started(resources, ("sh", "-c", f"sh -c '{EATER}'; sleep 1000"))
    eventually(lambda: node.status(container).state == cri.CONTAINER_EXITED)
    status = node.status(container)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


def test_without_a_group_kill_the_container_goes_on(node: Node, started: Callable[..., Made]) -> None:
    resources = cri.LinuxContainerResources(memory_limit_in_bytes=24 * MIB)
    _, container, group = started(resources, ("sh", "-c", f"sh -c '{EATER}'; echo $? > /code; sleep 1000"))
    eventually(lambda: "oom_kill 1" in value(group, "memory.events").splitlines())
    eventually(lambda: node.exec(container, "sh", "-c", "cat /code || true").strip() == "137")
    assert node.status(container).state == cri.CONTAINER_RUNNING


def test_swap_is_limited_and_told(node: Node, swap: None, started: Callable[..., Made]) -> None:
    """48 MiB of memory and 64 MiB of swap hold 80 MiB of a tmpfs; the stats tell both."""
    resources = cri.LinuxContainerResources(
        memory_limit_in_bytes=48 * MIB, memory_swap_limit_in_bytes=112 * MIB
    )
    _, container, group = started(resources)
    assert value(group, "memory.swap.max") == str(64 * MIB)
    node.exec(container, "dd", "if=/dev/zero", "of=/dev/shm/fill", "bs=1M", "count=60")
    used = int(value(group, "memory.swap.current"))
    assert 0 < used <= 64 * MIB
    stats = node.call("ContainerStats", cri.ContainerStatsRequest(container_id=container)).stats
    assert stats.swap.swap_usage_bytes.value > 0
    assert stats.swap.swap_usage_bytes.value + stats.swap.swap_available_bytes.value == 64 * MIB
    assert stats.memory.psi.Full.Total > 0 or stats.memory.psi.Some.Total > 0


def test_without_a_word_there_is_no_swap(started: Callable[..., Made]) -> None:
    _, _, group = started(cri.LinuxContainerResources(memory_limit_in_bytes=48 * MIB))
    assert value(group, "memory.swap.max") == "0"


def test_pressure_is_told(node: Node, started: Callable[..., Made]) -> None:
    """A container that wants more than its share of the CPU stalls, and its stats say so."""
    resources = cri.LinuxContainerResources(cpu_quota=10_000, cpu_period=100_000)
    _, container, _ = started(resources, ("sh", "-c", "while :; do :; done"))

    def stalled() -> bool:
        stats = node.call("ContainerStats", cri.ContainerStatsRequest(container_id=container)).stats
        return stats.cpu.psi.Some.Total > 0 and stats.cpu.psi.Full.Total > 0

    eventually(stalled)


def test_a_running_container_changes(node: Node, started: Callable[..., Made]) -> None:
    """UpdateContainerResources: every limit, and none is undone by a daemon-reload."""
    _, container, group = started(cri.LinuxContainerResources(memory_limit_in_bytes=64 * MIB))
    more = cri.LinuxContainerResources(
        memory_limit_in_bytes=96 * MIB,
        memory_swap_limit_in_bytes=128 * MIB,
        cpu_quota=50_000,
        cpu_period=100_000,
        cpu_shares=2048,
        cpuset_cpus="0",
        unified={"memory.high": str(80 * MIB), "pids.max": "77"},
    )
    request = cri.UpdateContainerResourcesRequest(container_id=container, linux=more)
    node.call("UpdateContainerResources", request)
    expected = {
        "memory.max": str(96 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.high": str(80 * MIB),
        "cpu.max": "50000 100000",
        "cpuset.cpus": "0",
        "pids.max": "77",
    }
    for _ in range(2):
        assert {name: value(group, name) for name in expected} == expected
        assert int(value(group, "cpu.weight")) > 39  # what 1024 shares are
        systemctl("daemon-reload")
    told = node.status(container).resources.linux
    assert (told.memory_limit_in_bytes, told.cpu_quota, told.cpuset_cpus) == (96 * MIB, 50_000, "0")


def test_a_running_pod_changes(node: Node, started: Callable[..., Made]) -> None:
    """UpdatePodSandboxResources: the slice that is ours follows, overhead on top."""
    sandbox, _, group = started(cri.LinuxContainerResources())
    request = cri.UpdatePodSandboxResourcesRequest(
        pod_sandbox_id=sandbox,
        resources=cri.LinuxContainerResources(
            memory_limit_in_bytes=128 * MIB, cpu_quota=50_000, cpu_period=100_000
        ),
        overhead=cri.LinuxContainerResources(
            memory_limit_in_bytes=16 * MIB, cpu_quota=10_000, cpu_period=100_000
        ),
    )
    node.call("UpdatePodSandboxResources", request)
    pod = group.parent
    for _ in range(2):
        assert value(pod, "memory.max") == str(144 * MIB)
        assert value(pod, "cpu.max") == "60000 100000"
        systemctl("daemon-reload")
