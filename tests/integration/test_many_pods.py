"""110 pods at once, the kubelet's default limit: all start, and the daemon's memory comes back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from runtime.v1 import api_pb2
from triptych_dev.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PODS = 110
_DEADLINE = 240
# What allocators and caches may keep, while a record a pod that is never dropped would cost more.
_SLACK = 4 << 20
_READY_SECONDS = 10.0


class Site(Stack):
    """A stack with pods of an image."""

    image = ""

    @property
    def _daemon(self) -> int:
        return self.processes["runtime"].popen.pid

    def memory(self) -> int:
        """What the runtime daemon takes for itself, in bytes.

        Not its share of files: that changes with whoever else maps them.
        """
        rollup = Path(f"/proc/{self._daemon}/smaps_rollup").read_text()
        (found,) = (line.split()[1] for line in rollup.splitlines() if line.startswith("Anonymous:"))
        return int(found) << 10

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._daemon}/fd"))

    def run_all(self, wave: str) -> list[str]:
        """Ask for all pods at once, each with a running container."""
        with self.runtime() as stub, ThreadPoolExecutor(PODS) as pool:

            def run(index: int) -> str:
                pod = api_pb2.PodSandboxConfig()
                pod.metadata.name, pod.metadata.uid = f"{wave}-{index}", f"{wave}-{index}-uid"
                pod.metadata.namespace = "many"
                pod.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
                request = api_pb2.RunPodSandboxRequest(config=pod)
                sandbox = stub.RunPodSandbox(request, timeout=_DEADLINE).pod_sandbox_id
                config = api_pb2.ContainerConfig(command=["sleep", "100000"])
                config.metadata.name, config.image.image = "main", self.image
                config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
                create = api_pb2.CreateContainerRequest(
                    pod_sandbox_id=sandbox, config=config, sandbox_config=pod
                )
                container = stub.CreateContainer(create, timeout=_DEADLINE).container_id
                start = api_pb2.StartContainerRequest(container_id=container)
                stub.StartContainer(start, timeout=_DEADLINE)
                return str(sandbox)

            return list(pool.map(run, range(PODS)))

    def remove_all(self, sandboxes: list[str]) -> None:
        """Stop and remove pods, all at once."""
        with self.runtime() as stub, ThreadPoolExecutor(PODS) as pool:

            def remove(sandbox: str) -> None:
                stop = api_pb2.StopPodSandboxRequest(pod_sandbox_id=sandbox)
                stub.StopPodSandbox(stop, timeout=_DEADLINE)
                gone = api_pb2.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
                stub.RemovePodSandbox(gone, timeout=_DEADLINE)

            list(pool.map(remove, sandboxes))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, live_image: str) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("many") / "stack", f"tmany{os.getpid()}", "10.95.0.0/16")
    made.write_configuration()
    with made.serving(live_image):
        made.image = live_image
        yield made


def test_all_start_at_once_and_nothing_of_them_is_kept(site: Site) -> None:
    site.remove_all(site.run_all("first"))  # caches and threads are there from now on
    memory, descriptors = site.memory(), site.descriptors()

    sandboxes = site.run_all("second")
    with site.runtime() as stub:
        pods = stub.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=_DEADLINE).items
        containers = stub.ListContainers(api_pb2.ListContainersRequest(), timeout=_DEADLINE).containers
        addresses = {
            stub.PodSandboxStatus(
                api_pb2.PodSandboxStatusRequest(pod_sandbox_id=sandbox), timeout=_DEADLINE
            ).status.network.ip
            for sandbox in sandboxes
        }
    assert {pod.id for pod in pods if pod.state == api_pb2.SANDBOX_READY} == set(sandboxes)
    assert [c.state for c in containers] == [api_pb2.CONTAINER_RUNNING] * PODS
    assert len(addresses) == PODS

    site.remove_all(sandboxes)
    with site.runtime() as stub:
        assert not stub.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=_DEADLINE).items
        assert not stub.ListContainers(api_pb2.ListContainersRequest(), timeout=_DEADLINE).containers
    deadline = time.monotonic() + 30
    while (grown := site.memory() - memory) > _SLACK and time.monotonic() < deadline:
        time.sleep(0.2)  # what ends in the background, ends
    assert grown <= _SLACK, f"{grown / 1e6:.1f} MB more than before 110 pods came and went"
    while (kept := site.descriptors() - descriptors) > 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert kept <= 4, f"{kept} descriptors more than before 110 pods came and went"


def test_ready_soon_after_a_restart_with_all_of_them(
    site: Site, record_property: Callable[[str, object], None]
) -> None:
    sandboxes = site.run_all("restart")
    site.kill("runtime")
    begun = time.monotonic()
    site.start("runtime")
    with site.runtime() as stub:
        pods = stub.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=_DEADLINE).items
        # A change waits until the daemon has looked at everything.
        missing = api_pb2.RemoveContainerRequest(container_id="0" * 64)
        stub.RemoveContainer(missing, timeout=_DEADLINE)
        seconds = time.monotonic() - begun
        containers = stub.ListContainers(api_pb2.ListContainersRequest(), timeout=_DEADLINE).containers
    record_property("ready_seconds", round(seconds, 2))
    assert {pod.id for pod in pods if pod.state == api_pb2.SANDBOX_READY} == set(sandboxes)
    assert [c.state for c in containers] == [api_pb2.CONTAINER_RUNNING] * PODS
    assert seconds < _READY_SECONDS
    site.remove_all(sandboxes)
