"""A disk without a free block: what runs can be stopped and removed, which is how room is made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver, refused, wait_until
from triptych_dev.testing.hangs import leftovers
from triptych_linux import mounts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """The file system of the runtime daemon's records."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounts.mount("small", directory, "tmpfs", data="size=4m")
    yield directory
    mounts.umount(directory)


@pytest.fixture
def stack(tmp_path: Path, small: Path, live_image: str) -> Iterator[Stack]:
    overrides = {"root": str(small / "runtime"), "network": {"cache_dir": ""}}
    made = Stack(tmp_path / "stack", f"tfull{os.getpid()}", "10.87.0.0/16", {"runtime": overrides})
    made.write_configuration()
    with made.serving(live_image, "image", "runtime"):
        yield made


def fill(directory: Path) -> Path:
    """Take every free block; the file that has them."""
    path = directory / "ballast"
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    return path


def state(driver: Driver, pod: str) -> int:
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod)
    answer = driver.stub.PodSandboxStatus(request, timeout=DEADLINE, wait_for_ready=True)
    return int(answer.status.state)


@pytest.mark.parametrize("killed", [False, True])
def test_pods_end_on_a_full_disk(stack: Stack, live_image: str, small: Path, killed: bool) -> None:
    with stack.runtime() as stub:
        driver = Driver(stub, live_image)
        removed, stopped = driver.run("removed"), driver.run("stopped")
        gone = driver.launch(removed, "app")
        waiting = "until test -e /end; do sleep 0.02; done; exit 7"
        ended = driver.launch(stopped, driver.config("app", ("sh", "-c", waiting)))
        ballast = fill(small)
        with refused(grpc.StatusCode.INTERNAL) as refusal:
            driver.run("new")
        assert "full" in refusal.text
        driver.output(ended, "touch", "/end")
        assert driver.wait_exited(ended).exit_code == 7
        driver.stop_pod(stopped)
        driver.stop_pod(removed)
        driver.remove(gone)
        driver.remove_pod(removed)
        if killed:
            stack.kill("runtime")
            ballast.unlink()
        else:
            ballast.unlink()
            driver.remove_pod(driver.run("new"))
            stack.kill("runtime")
    stack.start("runtime")
    with stack.runtime() as stub:
        again = Driver(stub, live_image)
        wait_until("the stopped one is not ready", lambda: state(again, stopped.id) == cri.SANDBOX_NOTREADY)
        assert (again.status(ended).state, again.status(ended).exit_code) == (cri.CONTAINER_EXITED, 7)
        if not killed:
            assert [pod.id for pod in stub.ListPodSandbox(cri.ListPodSandboxRequest()).items] == [stopped.id]
        again.clear()
    wait_until(f"nothing is left: {leftovers(stack)}", lambda: not leftovers(stack))
