"""A reboot: a fresh /run, nothing alive, and records of before."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import Driver, refused, wait_until
from triptych_linux import mounts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


@pytest.fixture
def stack(tmp_path: Path, live_image: str) -> Iterator[Stack]:
    made = Stack(tmp_path / "stack", f"tboot{os.getpid()}", "10.94.0.0/16")
    made.write_configuration()
    with made.serving(live_image, "image", "runtime"):
        yield made


def reboot(stack: Stack, pods: list[str]) -> None:
    """What a reboot does to a node, as far as it can be done to one that runs on."""
    stack.kill("runtime")
    stack.kill("image")

    def groups() -> list[Path]:
        """The pods' cgroups, whichever driver made them."""
        every = (Path(directory) for directory, _, _ in os.walk("/sys/fs/cgroup"))
        return [directory for directory in every if any(pod in directory.name for pod in pods)]

    for file in [file for group in groups() for file in group.glob("**/cgroup.procs")]:
        with contextlib.suppress(OSError):  # systemd removes the scope of what ended
            for pid in file.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

    def emptied() -> bool:
        for group in groups():
            for below in [*sorted((d for d in group.glob("**/*") if d.is_dir()), reverse=True), group]:
                with contextlib.suppress(OSError):
                    below.rmdir()
        return not groups()

    wait_until("the cgroups are empty", emptied)
    mounts.umount_below(stack.state)
    shutil.rmtree(stack.state)
    stack.state.mkdir()
    subprocess.run(["ip", "link", "delete", stack.bridge], check=True, timeout=10)
    with contextlib.closing(sqlite3.connect(stack.root / "runtime" / "state.db")) as database:
        database.execute("UPDATE meta SET value = 'another boot' WHERE key = 'boot_id'")
        database.commit()
    stack.start("image", "runtime")


def addresses(stack: Stack) -> list[Path]:
    return list((stack.root / "ipam").glob("*/10.*"))


def test_after_a_reboot_all_has_ended_and_addresses_are_given_back(stack: Stack, live_image: str) -> None:
    config = pod_config("web")
    config.linux.security_context.namespace_options.pid = cri.POD
    with stack.runtime() as stub:
        driver = Driver(stub, live_image)
        pods = [driver.run(config), driver.run("second")]
        running, created = driver.launch(pods[0], "running"), driver.create(pods[0], "created")
        ended = driver.launch(pods[1], driver.config("ended", ("sh", "-c", "exit 3")))
        before = driver.wait_exited(ended)
        assert len(addresses(stack)) == 2
    reboot(stack, [pod.id for pod in pods])

    with stack.runtime() as stub:
        driver = Driver(stub, live_image)
        listed = stub.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=5 * PATIENCE).items
        assert {pod.id: pod.state for pod in listed} == {pod.id: cri.SANDBOX_NOTREADY for pod in pods}
        for container in (running, created):
            status = driver.status(container)
            assert (status.state, status.reason, status.exit_code) == (cri.CONTAINER_EXITED, "Unknown", 255)
            assert "rebooted" in status.message
        assert driver.status(ended) == before
        wait_until("the addresses are given back", lambda: not addresses(stack))
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            driver.create(pods[0], "late")
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            driver.start(created)
        # What the kubelet does then: a new attempt, and the old one goes.
        config.metadata.attempt = 1
        again = driver.run(config)
        assert driver.status(driver.launch(again, "running")).state == cri.CONTAINER_RUNNING
        driver.clear()
    assert not addresses(stack)
    left = [*(stack.root / "image" / "rootfs").glob("*"), *(stack.state / "runtime/containers").glob("*")]
    assert not left


def test_a_second_start_after_the_reboot_is_no_reboot(stack: Stack, live_image: str) -> None:
    with stack.runtime() as stub:
        pod = Driver(stub, live_image).run("old")
    reboot(stack, [pod.id])
    with stack.runtime() as stub:
        fresh = Driver(stub, live_image).run("new")
    stack.kill("runtime")
    stack.start("runtime")
    with stack.runtime() as stub:
        listed = stub.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=5 * PATIENCE).items
        states = {pod.id: pod.state for pod in listed}
        assert states == {pod.id: cri.SANDBOX_NOTREADY, fresh.id: cri.SANDBOX_READY}
        Driver(stub, live_image).clear()
