"""OCI runtimes, monitors and CNI plugins that hang: a deadline, all cleaned up, nobody else held up."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver, refused, wait_until
from triptych_dev.testing.hangs import (
    AT_ONCE,
    SHORT,
    Hold,
    call_in_background,
    check_nobody_waits,
    hanging_stack,
    leftovers,
    processes_of,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Hold:
    return Hold(tmp_path_factory.mktemp("hold"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, hold: Hold, live_image: str) -> Iterator[Stack]:
    made = hanging_stack(tmp_path_factory.mktemp("hangs"), hold)
    with made.serving(live_image, "image", "runtime"):
        try:
            yield made
        finally:
            hold.lift()


@pytest.fixture
def driver(stack: Stack, hold: Hold, live_image: str) -> Iterator[Driver]:
    hold.lift()
    with stack.runtime() as stub:
        made = Driver(stub, live_image)
        yield made
        hold.lift()
        made.clear()
    wait_until(f"nothing is left: {leftovers(stack)}", lambda: not leftovers(stack))


@pytest.mark.parametrize("command", ["create", "start"])
def test_a_start_that_hangs_ends_and_holds_up_nobody(driver: Driver, hold: Hold, command: str) -> None:
    pod = driver.run(f"stuck-{command}", handler="slow")
    container = driver.create(pod, "app")
    hold.set(f"hang-{command}")
    thread, outcome = call_in_background(lambda: driver.start(container))
    wait_until("the OCI runtime is at it", lambda: len(processes_of(container)) >= 2)
    request = cri.ContainerStatusRequest(container_id=container)
    assert driver.stub.ContainerStatus(request, timeout=AT_ONCE).status.state == cri.CONTAINER_CREATED
    check_nobody_waits(driver, f"other-{command}")
    thread.join(30 * PATIENCE)
    assert outcome[0].code() is grpc.StatusCode.DEADLINE_EXCEEDED, outcome
    status = driver.status(container)
    assert (status.state, status.reason, status.exit_code) == (cri.CONTAINER_EXITED, "StartError", 128)
    assert f"{SHORT} s" in status.message
    hold.lift()
    wait_until("monitor and OCI runtime are dead", lambda: not processes_of(container))
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as again:
        driver.start(container)
    assert container in again.text
    driver.remove(container)
    next_one = driver.config("app")
    next_one.metadata.attempt = 1
    assert driver.status(driver.launch(pod, next_one)).state == cri.CONTAINER_RUNNING


def test_a_start_joins_the_one_whose_caller_went_away(driver: Driver, hold: Hold) -> None:
    pod = driver.run("retried", handler="slow")
    container = driver.create(pod, "app")
    hold.set("hang-create")
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        driver.start(container, deadline=0.5 * PATIENCE)
    thread, outcome = call_in_background(lambda: driver.start(container))
    hold.lift()
    thread.join(10 * PATIENCE)
    assert outcome == [None]
    assert driver.status(container).state == cri.CONTAINER_RUNNING


def test_a_stop_of_a_pod_waits_for_the_start_and_kills(driver: Driver, hold: Hold) -> None:
    pod = driver.run("stopped-early", handler="slow")
    container = driver.create(pod, "app")
    hold.set("hang-create")
    starting, _ = call_in_background(lambda: driver.start(container))
    wait_until("the OCI runtime is at it", lambda: len(processes_of(container)) >= 2)
    stopping, stopped = call_in_background(lambda: driver.stop_pod(pod))
    time.sleep(0.3 * PATIENCE)
    hold.lift()
    for thread in (starting, stopping):
        thread.join(15 * PATIENCE)
    assert stopped == [None]
    assert driver.status(container).state == cri.CONTAINER_EXITED
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        driver.create(pod, "late")
    driver.remove_pod(pod)


def test_a_removal_that_hangs_is_finished_by_the_next(driver: Driver, hold: Hold) -> None:
    pod = driver.run("stuck-delete", handler="slow")
    container = driver.launch(pod, "app")
    hold.set("hang-delete")
    driver.stop(container, 0, deadline=SHORT)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        driver.remove(container)
    listed = driver.stub.ListContainers(cri.ListContainersRequest(), timeout=AT_ONCE).containers
    assert [(c.id, c.state) for c in listed] == [(container, cri.CONTAINER_EXITED)]
    check_nobody_waits(driver, "other-delete")
    hold.lift()
    driver.remove(container)
    assert not driver.stub.ListContainers(cri.ListContainersRequest(), timeout=AT_ONCE).containers


def test_an_exec_that_hangs_ends_at_its_timeout(driver: Driver, hold: Hold) -> None:
    pod = driver.run("stuck-exec", handler="slow")
    container = driver.launch(pod, "app")
    hold.set("hang-exec")
    request = cri.ExecSyncRequest(container_id=container, cmd=["true"], timeout=1)
    started = time.monotonic()
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        driver.stub.ExecSync(request, timeout=DEADLINE)
    assert time.monotonic() - started < 5 * PATIENCE
    wait_until("the OCI runtime is dead", lambda: not any(" exec " in p for p in processes_of(container)))
    hold.lift()
    assert driver.output(container, "echo", "well") == "well\n"


def test_a_daemon_that_died_in_a_hung_start_undoes_it(driver: Driver, stack: Stack, hold: Hold) -> None:
    pod = driver.run("killed", handler="slow")
    container = driver.create(pod, "app")
    hold.set("hang-create")
    thread, _ = call_in_background(lambda: driver.start(container))
    wait_until("the OCI runtime is at it", lambda: len(processes_of(container)) >= 2)
    stack.kill("runtime")
    thread.join(10 * PATIENCE)
    stack.start("runtime")
    with stack.runtime() as stub:
        again = Driver(stub, driver.image)
        wait_until("the former start was undone", lambda: not processes_of(container))
        hold.lift()
        again.start(container)
        assert again.status(container).state == cri.CONTAINER_RUNNING
        again.clear()


def test_a_monitor_that_is_stopped(driver: Driver, tmp_path: Path) -> None:
    config = pod_config("frozen-monitor", log_directory=str(tmp_path))
    pod = driver.run(config)
    container = driver.launch(pod, "app")
    monitor = driver.container_info(container)["monitorPid"]
    os.kill(monitor, signal.SIGSTOP)
    log = tmp_path / "app" / "0.log"
    log.rename(tmp_path / "old.log")
    reopen = cri.ReopenContainerLogRequest(container_id=container)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        driver.stub.ReopenContainerLog(reopen, timeout=DEADLINE)
    assert driver.output(container, "echo", "alive") == "alive\n"
    driver.stop(container, 5)
    status = driver.status(container)
    assert (status.state, status.reason, status.exit_code) == (cri.CONTAINER_EXITED, "Unknown", 255)
    assert "monitor" in status.message
    wait_until("the monitor is dead", lambda: not processes_of(container))
    assert not log.exists()
    driver.remove(container)


def test_a_monitor_that_was_killed(driver: Driver, stack: Stack) -> None:
    pod = driver.run("no-monitor")
    container = driver.launch(pod, "app")
    info = driver.container_info(container)
    os.kill(info["monitorPid"], signal.SIGKILL)
    assert driver.output(container, "echo", "alive") == "alive\n"
    assert driver.status(container).state == cri.CONTAINER_RUNNING
    told = f"a container lives on without its monitor container={container}"
    wait_until("it is told", lambda: told in (stack.root / "runtime.log").read_text())
    started = time.monotonic()
    os.kill(info["pid"], signal.SIGKILL)
    status = driver.wait_exited(container, 5)
    assert time.monotonic() - started < 2 * PATIENCE
    assert (status.reason, status.exit_code) == ("Unknown", 255)


def test_a_plugin_that_hangs_fails_the_pod_by_name(driver: Driver, stack: Stack, hold: Hold) -> None:
    for name in ("hang-ADD-a", "hang-DEL-a"):
        hold.set(name)
    config = pod_config("a")
    thread, outcome = call_in_background(lambda: driver.run(config))
    time.sleep(0.5 * PATIENCE)
    check_nobody_waits(driver, "beside")
    thread.join(60 * PATIENCE)
    assert outcome[0].code() is grpc.StatusCode.DEADLINE_EXCEEDED, outcome
    assert re.search(r"hang.*ADD", outcome[0].details()), outcome[0].details()
    assert not driver.stub.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=AT_ONCE).items
    assert not list((stack.state / "runtime" / "ns").glob("*"))
    hold.lift()
    wait_until("the address is given back", lambda: not list((stack.root / "ipam").glob("*/10.*")))
    driver.run(config)


def test_a_pod_joins_the_attempt_whose_caller_went_away(driver: Driver, hold: Hold) -> None:
    hold.set("hang-ADD-b")
    config = pod_config("b")
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        driver.run(config, deadline=0.7 * PATIENCE)
    thread, outcome = call_in_background(lambda: driver.run(config))
    other = pod_config("b")
    other.metadata.uid, other.hostname = config.metadata.uid, "another"
    second, differing = call_in_background(lambda: driver.run(other))
    time.sleep(0.2 * PATIENCE)
    hold.lift()
    for caller in (thread, second):
        caller.join(20 * PATIENCE)
    pods = driver.stub.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=AT_ONCE).items
    assert [pod.id for pod in pods] == [outcome[0].id]
    assert driver.run(config).id == outcome[0].id
    assert differing[0].code() is grpc.StatusCode.ALREADY_EXISTS
    assert "configured otherwise" in differing[0].details()


def test_a_plugin_that_fails_is_quoted(driver: Driver, hold: Hold) -> None:
    hold.set("fail-ADD-c")
    with refused(grpc.StatusCode.INTERNAL) as failed:
        driver.run("c")
    assert "the switch is on fire" in failed.text
    assert "ExceptionGroup" not in failed.text


def test_a_network_that_is_not_given_back_is_tried_again(driver: Driver, stack: Stack, hold: Hold) -> None:
    pod = driver.run("d")
    container = driver.launch(pod, "app")
    hold.set("fail-DEL-d")
    with refused(grpc.StatusCode.INTERNAL) as failed:
        driver.stop_pod(pod)
    assert "the switch is on fire" in failed.text
    assert driver.status(container).state == cri.CONTAINER_EXITED
    status = driver.stub.PodSandboxStatus(
        cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id), timeout=5 * AT_ONCE
    )
    assert status.status.state == cri.SANDBOX_NOTREADY
    hold.lift()
    wait_until("the address is given back", lambda: not list((stack.root / "ipam").glob("*/10.*")))
    driver.stop_pod(pod)
    driver.remove_pod(pod)
