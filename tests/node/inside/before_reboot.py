"""An installed node under systemd: pods in slices, daemons that restart, stop and crash alone.

The tests build on each other, in this order.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.vm.inside import CGROUPS, DAEMONS, MIB, SLEEP, Node, eventually, systemctl

EXPOSURE = {"image": 4.0, "runtime": 9.6, "streaming": 9.0}
"""At most this open (0 to 10, systemd 252); docs/security.md has the figures."""


def test_the_daemons_run() -> None:
    for daemon in DAEMONS:
        assert systemctl("is-active", f"triptych-{daemon}.service") == "active"
        assert systemctl("is-active", f"triptych-{daemon}.socket") == "active"
    done = subprocess.run(["/usr/local/bin/triptych", "status"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_tell_systemd_that_they_are_ready_and_alive() -> None:
    for daemon in DAEMONS:
        unit = f"triptych-{daemon}.service"
        assert systemctl("show", "-P", "Type", unit) == "notify"
        assert systemctl("show", "-P", "WatchdogUSec", unit) == "1min"
        since = int(systemctl("show", "-P", "WatchdogTimestampMonotonic", unit))
        assert since >= int(systemctl("show", "-P", "ExecMainStartTimestampMonotonic", unit)) > 0


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_sandbox_of_the_units(daemon: str, record_property: Callable[[str, object], None]) -> None:
    unit = f"triptych-{daemon}.service"
    argv = ["systemd-analyze", "security", "--no-pager", unit]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found = re.search(rf"Overall exposure level for {unit}: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    record_property("exposure", found[1])
    assert float(found[1]) <= EXPOSURE[daemon]


def test_a_daemon_that_hangs_is_started_again() -> None:
    """The watchdog, with a shorter time: a stopped process answers nobody."""
    unit = "triptych-image.service"
    drop_in = Path(f"/run/systemd/system/{unit}.d/50-watchdog.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nWatchdogSec=10s\n")
    try:
        systemctl("daemon-reload")
        systemctl("restart", unit)
        before = systemctl("show", "-P", "MainPID", unit)
        systemctl("kill", "-s", "STOP", "--kill-whom=main", unit)
        eventually(lambda: systemctl("show", "-P", "MainPID", unit) not in ("0", before))
        eventually(lambda: systemctl("show", "-P", "ActiveState", unit) == "active")
        assert systemctl("show", "-P", "NRestarts", unit) != "0"
    finally:
        drop_in.unlink()
        drop_in.parent.rmdir()
        systemctl("daemon-reload")
        systemctl("restart", unit)


def test_status_and_driver(node: Node) -> None:
    status = node.call("Status", cri.StatusRequest()).status
    assert {c.type: c.status for c in status.conditions}["RuntimeReady"]
    eventually(lambda: all(c.status for c in node.call("Status", cri.StatusRequest()).status.conditions))
    assert node.call("RuntimeConfig", cri.RuntimeConfigRequest()).linux.cgroup_driver == cri.SYSTEMD


def test_pull(node: Node, registry: str) -> None:
    node.facts["image"] = registry
    with node.images() as images:
        images.PullImage(cri.PullImageRequest(image=cri.ImageSpec(image=registry)), timeout=120)
        listed = images.ListImages(cri.ListImagesRequest(), timeout=30).images
    assert registry in [tag for item in listed for tag in item.repo_tags]


def test_a_pod_below_the_kubelets_slice(node: Node) -> None:
    sandbox = node.run_pod("sliced", cgroup_parent="/kubepods.slice/kubepods-podsliced.slice")
    try:

        def limits(config: cri.ContainerConfig) -> None:
            config.linux.resources.memory_limit_in_bytes = 64 * MIB
            config.linux.resources.cpu_shares = 512

        container = node.run_container(sandbox, "main", change=limits)
        place = CGROUPS / f"kubepods.slice/kubepods-podsliced.slice/triptych-{container}.scope"
        assert place.is_dir()
        assert (place / "memory.max").read_text().strip() == str(64 * MIB)
        assert systemctl("show", "-P", "MemoryMax", place.name) == str(64 * MIB)
        pid = node.pid(container)
        assert Path(f"/proc/{pid}/cgroup").read_text().strip() == f"0::/{place.relative_to(CGROUPS)}"

        more = cri.LinuxContainerResources(memory_limit_in_bytes=96 * MIB)
        node.call(
            "UpdateContainerResources",
            cri.UpdateContainerResourcesRequest(container_id=container, linux=more),
        )
        systemctl("daemon-reload")
        assert (place / "memory.max").read_text().strip() == str(96 * MIB)

        stats = node.call("ContainerStats", cri.ContainerStatsRequest(container_id=container)).stats
        assert stats.cpu.usage_core_nano_seconds.value > 0
        assert 0 < stats.memory.working_set_bytes.value < 96 * MIB
        assert stats.HasField("io") and stats.cpu.HasField("psi")
        pod = node.call("PodSandboxStats", cri.PodSandboxStatsRequest(pod_sandbox_id=sandbox[0])).stats
        assert pod.linux.network.default_interface.name == "eth0"
        assert pod.linux.process.process_count.value >= 1
    finally:
        node.remove_pod(sandbox[0])
    assert not list((CGROUPS / "kubepods.slice").glob("**/triptych-*"))


def test_a_pod_of_a_client_without_cgroups(node: Node) -> None:
    sandbox = node.run_pod("plain")
    try:
        container = node.run_container(sandbox, "main")
        pods = CGROUPS / f"triptych.slice/triptych-{sandbox[0]}.slice"
        assert (pods / f"triptych-{container}.scope").is_dir()
        monitors = (CGROUPS / "triptych.slice/triptych-monitors.scope/cgroup.procs").read_text().split()
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in monitors}
        assert names == {"conmon"}
        assert node.exec(container, "hostname").strip() == "plain"
    finally:
        node.remove_pod(sandbox[0])
    eventually(lambda: not pods.exists())


def test_a_parent_of_the_other_driver_is_refused(node: Node) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        node.run_pod("wrong", cgroup_parent="/kubepods/podwrong")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "slice" in (caught.value.details() or "")


def test_oom_is_told(node: Node) -> None:
    sandbox = node.run_pod("hungry")
    try:

        def small(config: cri.ContainerConfig) -> None:
            config.linux.resources.memory_limit_in_bytes = 16 * MIB

        eat = ("sh", "-c", "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done")
        container = node.run_container(sandbox, "main", eat, small)
        eventually(lambda: node.status(container).state == cri.CONTAINER_EXITED)
        status = node.status(container)
        assert (status.reason, status.exit_code) == ("OOMKilled", 137)
    finally:
        node.remove_pod(sandbox[0])


@pytest.fixture
def living(node: Node) -> Iterator[str]:
    """A container that must survive what a test does, with the same process."""
    sandbox = node.run_pod("living")
    container = node.run_container(sandbox, "main", ("sh", "-c", "echo up; " + SLEEP[2]))
    pid = node.pid(container)
    yield container
    assert node.pid(container) == pid
    status = node.status(container)
    assert (status.state, status.metadata.attempt) == (cri.CONTAINER_RUNNING, 0)
    assert node.exec(container, "echo", "well").strip() == "well"
    node.remove_pod(sandbox[0])


@contextlib.contextmanager
def load(node: Node) -> Iterator[list[str]]:
    """Lists, statuses and whole pods meanwhile; calls that a restart cut off are tried again."""
    stop = threading.Event()
    problems: list[str] = []
    done = [0]

    def client(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                one_pod(node, f"load-{number}-{turn}")
                done[0] += 1
            except Exception as error:
                problems.append(repr(error))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield problems
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert done[0] > 0


def one_pod(node: Node, name: str) -> None:
    """The life of one pod, as a kubelet drives it through restarts."""
    config: list[tuple[str, cri.PodSandboxConfig]] = []
    retry(lambda: config.append(node.run_pod(name)))
    container: list[str] = []
    retry(lambda: container.append(node.run_container(config[-1], "main")))
    retry(lambda: node.call("ListContainers", cri.ListContainersRequest()))
    for sandbox, _ in config:
        retry(lambda sandbox=sandbox: node.remove_pod(sandbox))


def retry(step: object) -> None:
    """Repeat a call that was cut off, as the kubelet does."""
    assert callable(step)
    end = time.monotonic() + 90
    while True:
        try:
            step()
        except grpc.RpcError as error:
            again = (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.UNKNOWN,
                grpc.StatusCode.DEADLINE_EXCEEDED,  # the image daemon takes longer here than a call waits
            )
            # A start that was cut off may be done: its container is running by now.
            started = error.code() is grpc.StatusCode.FAILED_PRECONDITION and "running" in (
                error.details() or ""
            )
            if started:
                return
            if error.code() not in again or time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


@pytest.mark.parametrize("daemon", DAEMONS)
def test_restart_under_load(daemon: str, node: Node, living: str) -> None:
    with load(node) as problems:
        time.sleep(2)
        systemctl("restart", f"triptych-{daemon}.service")
        time.sleep(4)
    assert problems == []


@pytest.mark.parametrize("daemon", DAEMONS)
def test_kill_9(daemon: str, node: Node, living: str) -> None:
    unit = f"triptych-{daemon}.service"
    before = systemctl("show", "-P", "MainPID", unit)
    systemctl("kill", "-s", "KILL", "--kill-whom=main", unit)
    eventually(lambda: systemctl("show", "-P", "MainPID", unit) not in ("0", before))
    eventually(lambda: systemctl("show", "-P", "ActiveState", unit) == "active")


def test_the_others_work_while_one_is_down(node: Node, living: str) -> None:
    systemctl("stop", "triptych-streaming.service", "triptych-streaming.socket")
    try:
        assert node.exec(living, "true") == ""
        with node.images() as images:
            assert images.ListImages(cri.ListImagesRequest(), timeout=30).images
    finally:
        systemctl("start", "triptych-streaming.socket", "triptych-streaming.service")
    systemctl("stop", "triptych-image.service", "triptych-image.socket")
    try:
        assert node.status(living).state == cri.CONTAINER_RUNNING
        assert node.exec(living, "true") == ""
    finally:
        systemctl("start", "triptych-image.socket", "triptych-image.service")


def test_containers_live_while_the_runtime_daemon_is_stopped(node: Node, living: str) -> None:
    pid = node.pid(living)
    systemctl("stop", "triptych-runtime.service", "triptych-runtime.socket")
    try:
        time.sleep(1)
        assert Path(f"/proc/{pid}").exists()
    finally:
        systemctl("start", "triptych-runtime.socket", "triptych-runtime.service")
