"""Requests that cannot be met: their codes, what their messages name, and that nothing stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver, driving, refused

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

NOWHERE = "f" * 64


@pytest.fixture
def driver(live_stack: Stack, live_image: str) -> Iterator[Driver]:
    with driving(live_stack, live_image) as made:
        yield made


#: Every RPC on a container, and every RPC on a pod, that an unknown one makes NOT_FOUND.
ON_CONTAINERS: dict[str, Callable[[str], Any]] = {
    "StartContainer": lambda i: cri.StartContainerRequest(container_id=i),
    "ContainerStatus": lambda i: cri.ContainerStatusRequest(container_id=i),
    "UpdateContainerResources": lambda i: cri.UpdateContainerResourcesRequest(container_id=i),
    "ReopenContainerLog": lambda i: cri.ReopenContainerLogRequest(container_id=i),
    "ExecSync": lambda i: cri.ExecSyncRequest(container_id=i, cmd=["true"]),
    "Exec": lambda i: cri.ExecRequest(container_id=i, cmd=["true"], stdout=True),
    "Attach": lambda i: cri.AttachRequest(container_id=i, stdout=True),
    "ContainerStats": lambda i: cri.ContainerStatsRequest(container_id=i),
}
ON_PODS: dict[str, Callable[[str], Any]] = {
    "PodSandboxStatus": lambda i: cri.PodSandboxStatusRequest(pod_sandbox_id=i),
    "PortForward": lambda i: cri.PortForwardRequest(pod_sandbox_id=i, port=[80]),
    "PodSandboxStats": lambda i: cri.PodSandboxStatsRequest(pod_sandbox_id=i),
    "UpdatePodSandboxResources": lambda i: cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=i),
}


@pytest.mark.parametrize("name", [*ON_CONTAINERS, *ON_PODS])
def test_what_is_unknown_is_named(driver: Driver, name: str) -> None:
    make = ON_CONTAINERS.get(name) or ON_PODS[name]
    with refused(StatusCode.NOT_FOUND) as refusal:
        getattr(driver.stub, name)(make(NOWHERE), timeout=DEADLINE)
    assert NOWHERE in refusal.text
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        getattr(driver.stub, name)(make(""), timeout=DEADLINE)
    assert "ID is empty" in refusal.text


def test_ending_what_is_not_there_is_a_success(driver: Driver) -> None:
    driver.stop(NOWHERE)
    driver.remove(NOWHERE)
    unknown = driver.run("known")
    driver.stop_pod(unknown)
    driver.stop_pod(unknown)
    driver.remove_pod(unknown)
    driver.remove_pod(unknown)
    driver.stop_pod(unknown)


#: What each RPC says of a container that has ended, and of one that was only created.
@pytest.mark.parametrize("name", ["ExecSync", "Exec", "Attach", "ReopenContainerLog"])
def test_a_container_that_does_not_run(driver: Driver, name: str) -> None:
    pod = driver.run("idle")
    ended = driver.launch(pod, driver.config("ended", ("true",)))
    driver.wait_exited(ended)
    for container, state in ((driver.create(pod, "created"), "created"), (ended, "exited")):
        started = time.monotonic()
        with refused(StatusCode.FAILED_PRECONDITION) as refusal:
            getattr(driver.stub, name)(ON_CONTAINERS[name](container), timeout=DEADLINE)
        assert time.monotonic() - started < DEADLINE / 4
        assert container in refusal.text
        assert state in refusal.text


def test_a_pod_that_was_stopped(driver: Driver) -> None:
    pod = driver.run("stopped")
    created = driver.create(pod, "created")
    driver.stop_pod(pod)
    for name in ("PortForward", "PodSandboxStats", "UpdatePodSandboxResources"):
        with refused(StatusCode.FAILED_PRECONDITION) as refusal:
            getattr(driver.stub, name)(ON_PODS[name](pod.id), timeout=DEADLINE)
        assert pod.id in refusal.text
    with refused(StatusCode.FAILED_PRECONDITION):
        driver.create(pod, "late")
    with refused(StatusCode.FAILED_PRECONDITION):
        driver.start(created)
    with refused(StatusCode.ALREADY_EXISTS) as refusal:
        driver.run(pod.config)
    assert pod.id in refusal.text


def test_names_and_attempts(driver: Driver) -> None:
    pod = driver.run("names")
    container = driver.create(pod, "app")
    assert driver.create(pod, "app") == container
    assert driver.run(pod.config).id == pod.id
    other = driver.config("app", ("true",))
    with refused(StatusCode.ALREADY_EXISTS) as refusal:
        driver.create(pod, other)
    assert container in refusal.text
    other.metadata.attempt = 1
    again = driver.launch(pod, other)
    driver.wait_exited(again)
    with refused(StatusCode.FAILED_PRECONDITION) as refusal:
        driver.start(again)
    assert "exited" in refusal.text
    driver.start(container)
    driver.start(container)


def test_values_that_are_none(driver: Driver) -> None:
    pod = driver.run("values")
    container = driver.launch(pod, "app")
    exec_request = cri.ExecSyncRequest(container_id=container, cmd=["true"], timeout=-1)
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        driver.stub.ExecSync(exec_request, timeout=DEADLINE)
    assert "timeout" in refusal.text
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        driver.stub.ExecSync(cri.ExecSyncRequest(container_id=container), timeout=DEADLINE)
    assert "cmd" in refusal.text
    nothing = cri.AttachRequest(container_id=container)
    with refused(StatusCode.INVALID_ARGUMENT):
        driver.stub.Attach(nothing, timeout=DEADLINE)
    both = cri.ExecRequest(container_id=container, cmd=["sh"], tty=True, stdout=True, stderr=True)
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        driver.stub.Exec(both, timeout=DEADLINE)
    assert "stderr" in refusal.text
    for name in ("no-such-handler", "../crun"):
        with refused(StatusCode.INVALID_ARGUMENT) as refusal:
            driver.run("other", handler=name)
        assert name in refusal.text
    nameless = pod_config("x")
    nameless.metadata.name = ""
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        driver.run(nameless)
    assert "metadata.name" in refusal.text
    driver.stop(container, -5)
    assert driver.status(container).exit_code == 137


#: What is wrong with a pod or a container, and what the message names.
BAD_PODS: dict[str, Callable[[cri.PodSandboxConfig], Any]] = {
    "host_port 70000": lambda c: c.port_mappings.add(host_port=70_000, container_port=80),
    "host_port -1": lambda c: c.port_mappings.add(host_port=-1, container_port=80),
    "container_port 0": lambda c: c.port_mappings.add(host_port=80, container_port=0),
    "protocol 9": lambda c: c.port_mappings.add(host_port=80, container_port=80, protocol=9),
    "host_ip 'nobody'": lambda c: c.port_mappings.add(host_port=80, container_port=80, host_ip="nobody"),
    "metadata.name": lambda c: c.metadata.MergeFrom(cri.PodSandboxMetadata(name="a;K8S_POD_NAME=b")),
    "log_directory 'logs'": lambda c: c.MergeFrom(cri.PodSandboxConfig(log_directory="logs")),
}
BAD_CONTAINERS: dict[str, Callable[[cri.ContainerConfig], Any]] = {
    "image.image": lambda c: c.ClearField("image"),
    "log_path '../x'": lambda c: c.MergeFrom(cri.ContainerConfig(log_path="../x")),
    "container_path 'dev/x'": lambda c: c.devices.add(
        host_path="/dev/null", container_path="dev/x", permissions="r"
    ),
    "namespace_options.network": lambda c: c.linux.security_context.namespace_options.MergeFrom(
        cri.NamespaceOption(network=cri.NODE)
    ),
    "namespace_options.ipc": lambda c: c.linux.security_context.namespace_options.MergeFrom(
        cri.NamespaceOption(ipc=cri.NODE)
    ),
}


def test_bad_fields_are_named(driver: Driver) -> None:
    for named, spoil in BAD_PODS.items():
        config = pod_config("bad")
        spoil(config)
        with refused(StatusCode.INVALID_ARGUMENT) as refusal:
            driver.run(config)
        assert all(word in refusal.text for word in named.split()), refusal.text
    pod = driver.run("good")
    for named, ruin in BAD_CONTAINERS.items():
        container = driver.config("bad")
        ruin(container)
        with refused(StatusCode.INVALID_ARGUMENT) as refusal:
            driver.create(pod, container)
        assert all(word in refusal.text for word in named.split()), refusal.text
    huge = driver.config("huge")
    huge.linux.resources.hugepage_limits.add(page_size="3MB", limit=3 << 20)
    with refused(StatusCode.FAILED_PRECONDITION) as refusal:
        driver.create(pod, huge)
    assert "hugepage_limits" in refusal.text
    huge.linux.resources.hugepage_limits[0].limit = 0
    driver.launch(pod, huge)
    astray = driver.config("astray")
    astray.mounts.add(container_path="/x", host_path="/proc/version/below")
    with refused(StatusCode.FAILED_PRECONDITION) as refusal:
        driver.create(pod, astray)
    assert "host_path /proc/version/below" in refusal.text


def test_a_start_that_the_runtime_refuses(driver: Driver) -> None:
    pod = driver.run("refused")
    for handler in ("crun", "runc"):
        own = driver.run(f"refused-{handler}", handler=handler)
        container = driver.create(own, driver.config("app", ("/no/such/program",)))
        with pytest.raises(grpc.RpcError) as error:
            driver.start(container)
        assert "/no/such/program" in str(error.value)
        status = driver.status(container)
        assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
        assert "/no/such/program" in status.message
        assert status.finished_at >= status.started_at > 0
    missing = driver.config("missing")
    missing.image.image = "example.org/never/pulled:1"
    with refused(StatusCode.NOT_FOUND) as refusal:
        driver.create(pod, missing)
    assert "example.org/never/pulled:1" in refusal.text


def test_an_id_may_be_cut_short(driver: Driver) -> None:
    pods = [driver.run(f"short{number}") for number in range(2)]
    container = driver.launch(pods[0], "app")
    assert driver.status(container[:12]).id == container
    prefix = ""
    while pods[0].id.startswith(prefix) and pods[1].id.startswith(prefix):
        prefix = pods[0].id[: len(prefix) + 1]
    assert driver.pod_info(type(pods[0])(prefix, pods[0].config))["pid"] > 0
    filtered = cri.ListContainersRequest(filter=cri.ContainerFilter(id=container[:10]))
    assert [c.id for c in driver.stub.ListContainers(filtered, timeout=5 * PATIENCE).containers] == [
        container
    ]
