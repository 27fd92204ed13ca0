"""Limits of containers and pods, as the kernel has them, and their change."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver, refused

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

GROUPS = Path("/sys/fs/cgroup")
UNIFIED = (GROUPS / "cgroup.controllers").exists()


def test_limits_and_their_change(driver: Driver) -> None:
    pod = driver.run("limits")
    config = driver.config("app")
    limits = config.linux.resources
    limits.cpu_shares, limits.cpu_quota, limits.cpu_period = 512, 50_000, 100_000
    limits.memory_limit_in_bytes = limits.memory_swap_limit_in_bytes = 64 << 20
    limits.oom_score_adj = 900
    container = driver.launch(pod, config)
    for process in ("1", "self"):
        assert driver.output(container, "cat", f"/proc/{process}/oom_score_adj") == "900\n"
    group = memory_group(driver, container)
    assert memory_limit(group) == 64 << 20
    bigger = cri.LinuxContainerResources(memory_limit_in_bytes=96 << 20, memory_swap_limit_in_bytes=96 << 20)
    driver.stub.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=container, linux=bigger), timeout=DEADLINE
    )
    assert memory_limit(group) == 96 << 20
    reported = driver.status(container).resources.linux
    assert (reported.memory_limit_in_bytes, reported.cpu_quota) == (96 << 20, 50_000)
    if not UNIFIED:
        wrong = cri.LinuxContainerResources(unified={"memory.high": "1"})
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
            driver.stub.UpdateContainerResources(
                cri.UpdateContainerResourcesRequest(container_id=container, linux=wrong), timeout=DEADLINE
            )
        assert "unified" in refusal.text


def test_a_limit_changed_before_the_start(driver: Driver) -> None:
    pod = driver.run("early")
    config = driver.config("app", memory_bytes=32 << 20)
    config.linux.resources.memory_swap_limit_in_bytes = 32 << 20
    container = driver.create(pod, config)
    limits = cri.LinuxContainerResources(memory_limit_in_bytes=48 << 20, oom_score_adj=700)
    driver.stub.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=container, linux=limits), timeout=DEADLINE
    )
    driver.start(container)
    assert memory_limit(memory_group(driver, container)) == 48 << 20
    reported = driver.status(container).resources.linux
    assert (reported.memory_limit_in_bytes, reported.memory_swap_limit_in_bytes) == (48 << 20, 0)
    assert driver.output(container, "cat", "/proc/1/oom_score_adj") == "700\n"
    assert reported.oom_score_adj == 700


def test_an_oom_score_that_the_daemon_may_not_set_is_raised_by_an_update_too(driver: Driver) -> None:
    pod = driver.run("scores")
    scores = []
    for name, at_first in (("created", -999), ("updated", 300)):
        config = driver.config(name)
        config.linux.resources.oom_score_adj = at_first
        container = driver.launch(pod, config)
        lower = cri.LinuxContainerResources(oom_score_adj=-999)
        driver.stub.UpdateContainerResources(
            cri.UpdateContainerResourcesRequest(container_id=container, linux=lower), timeout=DEADLINE
        )
        scores.append(driver.output(container, "cat", "/proc/1/oom_score_adj"))
    assert scores[0] == scores[1]


def test_a_container_without_an_oom_score_has_not_the_daemons(driver: Driver, live_stack: Stack) -> None:
    daemon = Path(f"/proc/{live_stack.processes['runtime'].popen.pid}/oom_score_adj")
    before = daemon.read_text()
    daemon.write_text("150")
    try:
        container = driver.launch(driver.run("unscored"), "app")
    finally:
        daemon.write_text(before)
    assert driver.output(container, "cat", "/proc/1/oom_score_adj") == "0\n"


def test_a_container_that_runs_out_of_memory(driver: Driver) -> None:
    pod = driver.run("oom")
    config = driver.config("app", ("sh", "-c", "a=x; while :; do a=$a$a; done"), memory_bytes=24 << 20)
    config.linux.resources.memory_swap_limit_in_bytes = 24 << 20
    status = driver.wait_exited(driver.launch(pod, config), 40)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


def memory_limit(group: str) -> int:
    """What the kernel says of a cgroup's memory."""
    v2 = GROUPS / group.lstrip("/") / "memory.max"
    v1 = GROUPS / "memory" / group.lstrip("/") / "memory.limit_in_bytes"
    text = (v2 if UNIFIED else v1).read_text().strip()
    return 1 << 62 if text == "max" else int(text)


def memory_group(driver: Driver, container: str, controller: str = "memory") -> str:
    """The cgroup of a container where memory, or another controller, is counted."""
    lines = Path(f"/proc/{driver.container_info(container)['pid']}/cgroup").read_text().splitlines()
    return next(
        group for _, names, group in (line.split(":", 2) for line in lines) if controller in names or UNIFIED
    )


@pytest.fixture
def parent(driver: Driver) -> Iterator[str]:
    """A cgroup parent in the form of the node's driver."""
    name = f"triptychfields{os.getpid()}"
    answer = driver.stub.RuntimeConfig(cri.RuntimeConfigRequest(), timeout=DEADLINE)
    systemd = answer.linux.cgroup_driver == cri.SYSTEMD
    yield f"{name}.slice" if systemd else f"/{name}/pod"
    driver.clear()
    if systemd:
        subprocess.run(["systemctl", "stop", f"{name}.slice"], check=False, capture_output=True, timeout=30)
    for hierarchy in (GROUPS, *GROUPS.iterdir()):
        for directory in (hierarchy / name / "pod", hierarchy / name):
            if directory.is_dir():
                directory.rmdir()


def test_a_cgroup_parent_is_the_clients(driver: Driver, parent: str) -> None:
    config = pod_config("parented", cgroup_parent=parent)
    config.linux.resources.memory_limit_in_bytes = 64 << 20  # the kubelet sets it, and nobody else
    pod = driver.run(config)
    container = driver.launch(pod, "app")
    assert driver.container_info(container)["cgroupsPath"].startswith(parent)
    group = memory_group(driver, container)
    assert f"/{parent.strip('/')}/" in group
    assert memory_limit(os.path.dirname(group)) > 1 << 50
    wrong = pod_config("wrong", cgroup_parent="/a/b" if parent.endswith(".slice") else "a.slice")
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        driver.run(wrong)
    assert "cgroup_parent" in refusal.text


def test_limits_of_a_pod_whose_cgroup_is_ours(driver: Driver) -> None:
    config = pod_config("limited")
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    config.linux.overhead.memory_limit_in_bytes = 16 << 20
    pod = driver.run(config)
    container = driver.launch(pod, "app")
    group = os.path.dirname(memory_group(driver, container))
    assert memory_limit(group) == 80 << 20
    request = cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod.id)
    request.resources.memory_limit_in_bytes = 128 << 20
    driver.stub.UpdatePodSandboxResources(request, timeout=DEADLINE)
    assert memory_limit(group) == 144 << 20
    request.overhead.memory_limit_in_bytes = 32 << 20
    driver.stub.UpdatePodSandboxResources(request, timeout=DEADLINE)
    assert memory_limit(group) == 160 << 20
    request.resources.cpu_period = 5
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        driver.stub.UpdatePodSandboxResources(request, timeout=DEADLINE)
    assert "cpu_period" in refusal.text


def test_cpus_memory_nodes_and_huge_pages(driver: Driver) -> None:
    pod = driver.run("sets")
    config = driver.config("app")
    limits = config.linux.resources
    limits.cpuset_cpus = limits.cpuset_mems = "0"
    container = driver.launch(pod, config)
    status = driver.output(container, "grep", "_allowed_list", "/proc/1/status").split()
    assert status == ["Cpus_allowed_list:", "0", "Mems_allowed_list:", "0"]
    reported = driver.status(container).resources.linux
    assert (reported.cpuset_cpus, reported.cpuset_mems) == ("0", "0")
    if UNIFIED and "hugetlb" not in (GROUPS / "cgroup.subtree_control").read_text():
        return  # systemd does not pass that controller on
    huge = driver.config("huge")
    huge.linux.resources.hugepage_limits.add(page_size="2MB", limit=4 << 20)
    try:
        container = driver.launch(pod, huge)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, error
        assert "hugepage_limits" in str(error)
        return
    path = memory_group(driver, container, "hugetlb").lstrip("/")
    names = (GROUPS / "hugetlb" / path / "hugetlb.2MB.limit_in_bytes", GROUPS / path / "hugetlb.2MB.max")
    assert [int(name.read_text()) for name in names if name.exists()] == [4 << 20]
    limit = driver.status(container).resources.linux.hugepage_limits[0]
    assert (limit.page_size, limit.limit) == ("2MB", 4 << 20)
