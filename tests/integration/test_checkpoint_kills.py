"""kill -9 in the middle of checkpoints and restores.

What is tested is the daemon's part, so crun's `checkpoint` is replaced by one that only writes a file: CRIU
works on few kernels. test_checkpoint.py has the real one.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, FOREVER, Driver, Pod, refused, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.requires("crun"), pytest.mark.timeout(200)]

_CRUN = """#!/bin/sh
case " $* " in
*" --version "*) {crun} --version; echo +CRIU; exit ;;
*" checkpoint "*)
    while [ "$1" != --image-path ]; do shift; done
    echo images >"$2/inventory.img"
    exit ;;
esac
exec {crun} "$@"
"""


class Site(Stack):
    """A stack whose only handler is a crun that seems to have CRIU."""

    def run(self, fault: str = "") -> None:
        """Start the runtime daemon, to be killed at a fault point."""
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        self.start("runtime", env={"PATH": path, "TRIPTYCH_FAULT": fault})

    def crun(self, command: str, container: str) -> str:
        argv = ["crun", "--root", str(self.state / "runtime/oci/simulated"), command, container]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout

    def status_of(self, container: str) -> str:
        status: str = json.loads(self.crun("state", container))["status"]
        return status

    def runs(self, container: str) -> bool:
        return self.status_of(container) == "running"


@pytest.fixture
def site(tmp_path: Path, live_image: str) -> Iterator[Site]:
    root = tmp_path / "stack"
    handlers = {
        "simulated": {"path": str(root / "bin/simulated")},
        "crun": {"enabled": False},
        "runc": {"enabled": False},
    }
    made = Site(root, f"tckpt{os.getpid()}", "10.92.0.0/16", {"runtime": {"handlers": handlers}})
    made.write_configuration()
    programs = {
        "simulated": _CRUN.format(crun=shlex.quote(shutil.which("crun") or "crun")),
        "criu": "#!/bin/sh\n",
    }
    (root / "bin").mkdir()
    for name, text in programs.items():
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    with made.serving(live_image, "image"):
        yield made


def checkpoint(driver: Driver, pod: Pod, containers: list[str], output: Path) -> None:
    output.mkdir(exist_ok=True)
    request = cri.CheckpointPodRequest(
        pod_sandbox_id=pod.id, output_path=str(output), container_ids=containers
    )
    driver.stub.CheckpointPod(request, timeout=DEADLINE)


@pytest.mark.parametrize("point", ["checkpoint_pod.paused", "checkpoint_pod.captured"])
def test_containers_that_a_checkpoint_held_go_on(
    site: Site, live_image: str, tmp_path: Path, point: str
) -> None:
    site.run(point)
    with site.runtime() as stub:
        driver = Driver(stub, live_image)
        pod, other = driver.run("held"), driver.run("other")
        held = [driver.launch(pod, name) for name in ("one", "two")]
        paused = driver.launch(other, "main")
        site.crun("pause", paused)
        with pytest.raises(grpc.RpcError):
            checkpoint(driver, pod, held, tmp_path / "output")
    site.wait_for_death("runtime")
    assert {site.status_of(container) for container in held} == {"paused"}

    site.run()
    with site.runtime() as stub:
        again = Driver(stub, live_image)
        for container in held:
            wait_until("it goes on", partial(site.runs, container))
            assert again.output(container, "echo", "here") == "here\n"
        assert site.status_of(paused) == "paused"  # by somebody else, whose affair it is
        site.crun("resume", paused)
        assert list((site.state / "runtime/pauses").iterdir()) == []
        again.clear()


def test_a_restore_is_undone_when_it_was_cut_off_and_answered_when_it_is_asked_for_again(
    site: Site, live_image: str, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    site.run()
    with site.runtime() as stub:
        driver = Driver(stub, live_image)
        pod = driver.run("captured")
        checkpoint(driver, pod, [driver.launch(pod, "main")], output)
        driver.clear()
        request = cri.RestorePodRequest(
            checkpoint_path=str(output),
            config=pod_config("restored"),
            container_configs=[driver.config("main", FOREVER)],
        )
    site.stop("runtime")
    for point in ("restore_pod.sandbox", "restore_pod.container", "restore_pod.prepared"):
        site.run(point)
        with site.runtime() as stub:
            with pytest.raises(grpc.RpcError):
                stub.RestorePod(request, timeout=DEADLINE)
            site.wait_for_death("runtime")
        site.run()
        with site.runtime() as stub:
            wait_until("it is undone", lambda: not stub.ListPodSandbox(cri.ListPodSandboxRequest()).items)
            assert not stub.ListContainers(cri.ListContainersRequest()).containers
        site.stop("runtime")

    site.run()
    with site.runtime() as stub:
        answer = stub.RestorePod(request, timeout=DEADLINE)
        assert stub.RestorePod(request, timeout=DEADLINE) == answer
        (restored,) = answer.restored_containers
        status = cri.ContainerStatusRequest(container_id=restored.container_id)
        assert stub.ContainerStatus(status, timeout=DEADLINE).status.state == cri.CONTAINER_CREATED
        request.container_configs[0].labels["another"] = "configuration"
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            stub.RestorePod(request, timeout=DEADLINE)
        Driver(stub, live_image).clear()
    assert list((site.root / "runtime/checkpoints").iterdir()) == []
