"""kill -9 of the runtime daemon at every fault point: no orphans, nothing living lost, retries succeed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_linux import marked

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_DEADLINE = 60 * PATIENCE


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, live_image: str) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("kill") / "stack", f"tk{os.getpid()}", "10.96.0.0/16")
    made.write_configuration()
    with made.serving(live_image, "image"):
        yield made


@dataclass
class Life:
    """One pod's life as the kubelet drives it; every step may be repeated."""

    stub: api_pb2_grpc.RuntimeServiceStub
    image: str
    sandbox: str = ""
    containers: dict[str, str] = field(default_factory=dict)

    def config(self) -> api_pb2.PodSandboxConfig:
        config = api_pb2.PodSandboxConfig()
        config.metadata.name, config.metadata.uid, config.metadata.namespace = "pod", "uid", "kill"
        config.linux.security_context.namespace_options.pid = api_pb2.POD
        return config

    def container(self, name: str) -> api_pb2.ContainerConfig:
        script = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
        config = api_pb2.ContainerConfig(command=["sh", "-c", script])
        config.metadata.name = name
        config.image.image = self.image
        config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
        return config

    def run(self) -> None:
        request = api_pb2.RunPodSandboxRequest(config=self.config())
        self.sandbox = self.stub.RunPodSandbox(request, timeout=_DEADLINE).pod_sandbox_id

    def create(self, name: str) -> None:
        request = api_pb2.CreateContainerRequest(
            pod_sandbox_id=self.sandbox, config=self.container(name), sandbox_config=self.config()
        )
        self.containers[name] = self.stub.CreateContainer(request, timeout=_DEADLINE).container_id

    def start(self, name: str) -> None:
        request = api_pb2.StartContainerRequest(container_id=self.containers[name])
        self.stub.StartContainer(request, timeout=_DEADLINE)

    def up(self) -> None:
        self.run()
        for name in ("a", "b"):
            self.create(name)
            self.start(name)

    def down(self) -> None:
        stop = api_pb2.StopContainerRequest(container_id=self.containers["a"], timeout=10)
        self.stub.StopContainer(stop, timeout=_DEADLINE)
        remove = api_pb2.RemoveContainerRequest(container_id=self.containers["a"])
        self.stub.RemoveContainer(remove, timeout=_DEADLINE)
        self.stub.StopPodSandbox(
            api_pb2.StopPodSandboxRequest(pod_sandbox_id=self.sandbox), timeout=_DEADLINE
        )
        self.stub.RemovePodSandbox(
            api_pb2.RemovePodSandboxRequest(pod_sandbox_id=self.sandbox), timeout=_DEADLINE
        )


def leftovers(stack: Stack) -> list[str]:
    """Everything that a pod or container could have left on the node."""
    found: list[str] = []
    runtime = stack.state / "runtime"
    for part in ("containers", "sandboxes", "ns", "exits", "exec"):
        found += [str(p) for p in (runtime / part).glob("*")]
    for name in ("crun", "runc"):
        found += [str(p) for p in (runtime / "oci" / name).glob("*")]
    found += [str(p) for p in (stack.root / "ipam").glob("*/10.*")]
    found += [str(p) for p in (stack.root / "image" / "rootfs").glob("*")]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [line for line in mounts if f" {runtime}/" in line and f" {runtime}/ns " not in line]
    groups = Path("/sys/fs/cgroup").glob("*/triptych/*")
    found += [str(p) for p in groups if p.is_dir() and p.name in stack.pods()]
    # A pod's init has this in its environment, and stands in no cgroup of its pod at first.
    inits = marked.find("TRIPTYCH_SANDBOX", stack.pods(), lambda pid: os.getsid(pid) == pid)
    found += [f"init {init.pid}" for init in inits]
    links = subprocess.run(
        ["ip", "-o", "link", "show", "master", stack.bridge], capture_output=True, text=True
    )
    found += links.stdout.splitlines()
    return found


def await_no_leftovers(stack: Stack, when: str) -> None:
    # What a removal that failed leaves to the background comes seconds later, on a busy node many.
    end = time.monotonic() + 60 * PATIENCE
    while left := leftovers(stack):
        if time.monotonic() > end:
            pytest.fail(f"{when}: left behind:\n" + "\n".join(left[:20]))
        time.sleep(0.05)


def points(stack: Stack, image: str, trace: Path) -> list[str]:
    """The fault points of a whole life, in the order in which they are first passed."""
    stack.start("runtime", env={"TRIPTYCH_FAULT_TRACE": str(trace)})
    with stack.runtime() as stub:
        life = Life(stub, image)
        life.up()
        life.down()
    stack.stop("runtime")
    await_no_leftovers(stack, "a whole life")
    return list(dict.fromkeys(trace.read_text().split()))


def test_kill_at_every_step(stack: Stack, live_image: str, tmp_path: Path) -> None:
    passed = points(stack, live_image, tmp_path / "trace")
    assert len(passed) > 25, passed
    for point in passed:
        strike(stack, live_image, point, "kill")


def test_failure_at_every_step_of_a_create(stack: Stack, live_image: str, tmp_path: Path) -> None:
    all_points = points(stack, live_image, tmp_path / "trace")
    passed = [point for point in all_points if point.startswith(("run_", "create_", "start_"))]
    assert len(passed) > 12, passed
    for point in passed:
        strike(stack, live_image, point, "fail")


def strike(stack: Stack, image: str, point: str, how: str) -> None:
    """One life with a fault in it, then the same requests again as the kubelet would send them."""
    fault = point if how == "kill" else f"fail:{point}"
    stack.start("runtime", env={"TRIPTYCH_FAULT": fault})
    with stack.runtime() as stub:
        life = Life(stub, image)
        with contextlib.suppress(grpc.RpcError):
            life.up()
            life.down()
        known = dict(life.containers)
    if how == "kill":
        stack.wait_for_death("runtime")
    else:
        stack.stop("runtime")
    alive = living(stack)
    stack.start("runtime")
    with stack.runtime() as stub:
        check_nothing_lost(stub, alive, point)
        again = Life(stub, image)
        try:
            finish(stub, again, known)
        except grpc.RpcError as error:
            pytest.fail(f"{point}: a retry failed: {error.code()}: {error.details()}")
        await_no_leftovers(stack, point)
    stack.stop("runtime")


def living(stack: Stack) -> dict[str, int]:
    """Containers whose first process runs while the daemon is down: ID to PID."""
    found: dict[str, int] = {}
    for pid_file in (stack.state / "runtime" / "containers").glob("*/pidfile"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(pid_file.read_text())
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if state not in "ZX" and command.startswith(b"sh\0"):
                found[pid_file.parent.name] = pid
    return found


def check_nothing_lost(stub: api_pb2_grpc.RuntimeServiceStub, alive: dict[str, int], point: str) -> None:
    """What ran on is known as running, unless its start or removal was under way."""
    running = api_pb2.ContainerFilter(state=api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_RUNNING))
    listed = stub.ListContainers(api_pb2.ListContainersRequest(filter=running), timeout=_DEADLINE)
    known = {container.id for container in listed.containers}
    if point.startswith(("start_container.", "remove_", "stop_", "exit.")):
        return
    assert set(alive) <= known, f"{point}: living containers were lost"


def finish(stub: api_pb2_grpc.RuntimeServiceStub, life: Life, known: dict[str, str]) -> None:
    """What the kubelet does with what it finds: completes a ready pod, else removes it and makes it anew."""
    pods = stub.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=_DEADLINE).items
    if any(pod.state != api_pb2.SANDBOX_READY for pod in pods):
        for pod in pods:
            stub.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=_DEADLINE)
            stub.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=_DEADLINE)
    listed = stub.ListContainers(api_pb2.ListContainersRequest(), timeout=_DEADLINE).containers
    for container in listed:
        if container.state == api_pb2.CONTAINER_EXITED:
            remove = api_pb2.RemoveContainerRequest(container_id=container.id)
            stub.RemoveContainer(remove, timeout=_DEADLINE)
    life.up()
    statuses = [
        stub.ContainerStatus(api_pb2.ContainerStatusRequest(container_id=i), timeout=_DEADLINE).status.state
        for i in life.containers.values()
    ]
    assert statuses == [api_pb2.CONTAINER_RUNNING] * 2
    life.down()
