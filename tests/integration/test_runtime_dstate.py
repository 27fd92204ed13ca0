"""State D: what waits in the kernel and cannot be killed holds up nobody else, and goes when it can."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_dev.testing import hungfs
from triptych_dev.testing.driver import DEADLINE, Driver, refused, wait_until
from triptych_dev.testing.hangs import (
    DEADLINES,
    call_in_background,
    check_nobody_waits,
    leftovers,
    processes_of,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse"),
]

_RUNTIME = """#!/bin/sh
# crun, but it waits in the kernel in a command as long as the file hang-COMMAND exists.
for word; do
    case "$word" in create|delete|exec) if [ -e {base}/hang-"$word" ]; then stat {base}/fs/hang; fi;; esac
done
exec crun "$@"
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def recover(base: Path) -> Iterator[Callable[[], None]]:
    """A file system that hangs is mounted; call it to bring the storage back, so to say."""
    with hungfs.mounted(base / "fs") as process:
        yield process.kill


@pytest.fixture
def stack(base: Path, live_image: str) -> Iterator[Stack]:
    runtime = base / "stuck"
    runtime.write_text(_RUNTIME.format(base=base))
    runtime.chmod(0o755)
    overrides: dict[str, Any] = {"handlers": {"stuck": {"path": str(runtime)}}, "deadlines": DEADLINES}
    made = Stack(base / "stack", f"tdst{os.getpid()}", "10.89.0.0/16", {"runtime": overrides})
    made.write_configuration()
    with made.serving(live_image, "image", "runtime"):
        yield made


@pytest.fixture
def driver(stack: Stack, recover: Callable[[], None], live_image: str) -> Iterator[Driver]:
    with stack.runtime() as stub:
        made = Driver(stub, live_image)
        yield made
        recover()
        made.clear()
    wait_until(f"nothing is left: {leftovers(stack)}", lambda: not leftovers(stack))


def states(directory: Path) -> list[str]:
    """The states of the processes that look up the hanging name."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if command[:2] == [b"stat", os.fsencode(directory / "fs" / hungfs.HANG)]:
            found.append(state)
    return found


def test_a_container_in_state_d(driver: Driver, base: Path, recover: Callable[[], None]) -> None:
    pod = driver.run("stuck")
    config = driver.config("app", ("stat", f"{base}/fs/{hungfs.HANG}"))
    config.mounts.add(container_path=f"{base}/fs", host_path=str(base / "fs"))
    container = driver.launch(pod, config)
    wait_until("it looks the name up", lambda: states(base) == ["S"])
    for _ in range(2):
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED) as refusal:
            driver.stop(container, 0)
        assert "state D" in refusal.text
        assert container in refusal.text
    assert states(base) == ["D"]
    assert driver.status(container).state == cri.CONTAINER_RUNNING
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        driver.stop_pod(pod)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        driver.remove(container)
    check_nobody_waits(driver, "beside")
    request = cri.ContainerStatsRequest(container_id=container)
    driver.stub.ContainerStats(request, timeout=PATIENCE)
    driver.stub.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest(), timeout=PATIENCE)
    recover()
    status = driver.wait_exited(container)
    assert (status.exit_code, status.reason) == (137, "Error")
    driver.remove_pod(pod)


def test_an_oci_runtime_in_state_d(driver: Driver, base: Path, recover: Callable[[], None]) -> None:
    pod = driver.run("stuck", handler="stuck")
    container = driver.create(pod, "app")
    (base / "hang-create").touch()
    starting, outcome = call_in_background(lambda: driver.start(container))
    wait_until("the OCI runtime waits in the kernel", lambda: len(states(base)) == 1)
    check_nobody_waits(driver, "beside")
    starting.join(60 * PATIENCE)
    assert outcome[0].code() is grpc.StatusCode.DEADLINE_EXCEEDED, outcome
    assert states(base) == ["D"]
    status = driver.status(container)
    assert (status.state, status.reason) == (cri.CONTAINER_EXITED, "StartError")
    check_nobody_waits(driver, "beside-still")
    (base / "hang-create").unlink()
    recover()
    wait_until("what hung is gone", lambda: not processes_of(container))
    driver.remove(container)


def test_the_daemon_ends_though_a_thread_of_it_hangs(driver: Driver, stack: Stack, base: Path) -> None:
    """A thread that waits as on an NFS server that is gone ends with the process, and not before."""
    config = pod_config("stuck", log_directory=f"{base}/still/logs")
    container = driver.create(driver.run(config), "app")
    with hungfs.mounted(base / "still") as server:
        os.kill(server.pid, signal.SIGSTOP)
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            driver.start(container, deadline=PATIENCE)
        stack.stop("runtime")
    stack.start("runtime")
    driver.stub.Version(cri.VersionRequest(), timeout=DEADLINE, wait_for_ready=True)


def test_an_exec_in_state_d(driver: Driver, base: Path, recover: Callable[[], None]) -> None:
    pod = driver.run("stuck", handler="stuck")
    container = driver.launch(pod, "app")
    (base / "hang-exec").touch()
    request = cri.ExecSyncRequest(container_id=container, cmd=["true"], timeout=int(2 * PATIENCE))
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        driver.stub.ExecSync(request, timeout=DEADLINE)
    assert states(base) == ["D"]
    (base / "hang-exec").unlink()
    assert driver.output(container, "echo", "well") == "well\n"
    check_nobody_waits(driver, "beside")
    recover()
    wait_until("what hung is gone", lambda: not states(base))
