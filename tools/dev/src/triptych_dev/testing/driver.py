"""Driving pods and containers in tests, a call a step, each with a deadline of its own."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from runtime.v1 import api_pb2 as cri

from triptych_dev.kubelet import container_config, pod_config
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack

#: Seconds that any call may take in a test, unless it says otherwise.
DEADLINE = 60.0 * PATIENCE
#: A command that ends at once on SIGTERM, and otherwise not.
FOREVER = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")


def wait_until(what: str, holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds, or fail saying what did not.

    :param seconds: on an ordinary machine.
    """
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


@dataclass
class Refusal:
    """An RPC's error, once the block of `refused` has ended."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    text: str = ""


@contextlib.contextmanager
def refused(code: grpc.StatusCode) -> Iterator[Refusal]:
    """The block must fail with an RPC's error of this code."""
    refusal = Refusal()
    try:
        yield refusal
    except grpc.RpcError as error:
        refusal.code, refusal.text = error.code(), error.details() or ""
        assert refusal.code is code, (refusal.code, refusal.text)
    else:
        raise AssertionError(f"no error, where {code} was due")


@dataclass
class Pod:
    """A pod that runs: its ID and what it was asked to be."""

    id: str
    config: cri.PodSandboxConfig


@dataclass
class Driver:
    """The steps of a pod's life over a RuntimeService stub.

    :param image: reference of the image that containers get, already pulled.
    :param handler: runtime handler of the pods, "" for the default one.
    """

    stub: Any
    image: str
    handler: str = ""
    pods: list[Pod] = field(default_factory=list)

    def run(
        self, config: cri.PodSandboxConfig | str, *, deadline: float = DEADLINE, handler: str | None = None
    ) -> Pod:
        """Run a pod, by its configuration or just a name."""
        if isinstance(config, str):
            config = pod_config(config)
        request = cri.RunPodSandboxRequest(
            config=config, runtime_handler=self.handler if handler is None else handler
        )
        pod = Pod(self.stub.RunPodSandbox(request, timeout=deadline).pod_sandbox_id, config)
        self.pods.append(pod)
        return pod

    def config(self, name: str, command: Sequence[str] = FOREVER, **more: Any) -> cri.ContainerConfig:
        """A container's configuration, to be changed and given to `create`."""
        return container_config(name, self.image, command, **more)

    def create(self, pod: Pod, config: cri.ContainerConfig | str, *, deadline: float = DEADLINE) -> str:
        """Create a container, by its configuration or just a name; returns its ID."""
        if isinstance(config, str):
            config = self.config(config)
        request = cri.CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        identity: str = self.stub.CreateContainer(request, timeout=deadline).container_id
        return identity

    def start(self, container: str, *, deadline: float = DEADLINE) -> None:
        self.stub.StartContainer(cri.StartContainerRequest(container_id=container), timeout=deadline)

    def launch(self, pod: Pod, config: cri.ContainerConfig | str) -> str:
        """Create and start."""
        identity = self.create(pod, config)
        self.start(identity)
        return identity

    def output(self, container: str, *command: str, code: int = 0) -> str:
        """What a command in the container prints; its exit code must be `code`."""
        request = cri.ExecSyncRequest(container_id=container, cmd=command, timeout=int(DEADLINE // 2))
        done = self.stub.ExecSync(request, timeout=DEADLINE)
        assert done.exit_code == code, (command, done.exit_code, done.stdout, done.stderr)
        text: str = done.stdout.decode()
        return text

    def status(self, container: str) -> Any:
        """ContainerStatus of a container."""
        request = cri.ContainerStatusRequest(container_id=container)
        return self.stub.ContainerStatus(request, timeout=DEADLINE).status

    def container_info(self, container: str) -> dict[str, Any]:
        """The verbose document of a container."""
        request = cri.ContainerStatusRequest(container_id=container, verbose=True)
        info: dict[str, Any] = json.loads(self.stub.ContainerStatus(request, timeout=DEADLINE).info["info"])
        return info

    def pod_info(self, pod: Pod) -> dict[str, Any]:
        """The verbose document of a pod."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)
        info: dict[str, Any] = json.loads(self.stub.PodSandboxStatus(request, timeout=DEADLINE).info["info"])
        return info

    def wait_exited(self, container: str, seconds: float = 20.0) -> Any:
        """The status of a container once it has ended."""
        wait_until(
            f"container {container} exited",
            lambda: self.status(container).state == cri.CONTAINER_EXITED,
            seconds,
        )
        return self.status(container)

    def stop(self, container: str, grace: int = 0, *, deadline: float = DEADLINE) -> None:
        request = cri.StopContainerRequest(container_id=container, timeout=grace)
        self.stub.StopContainer(request, timeout=deadline)

    def remove(self, container: str, *, deadline: float = DEADLINE) -> None:
        self.stub.RemoveContainer(cri.RemoveContainerRequest(container_id=container), timeout=deadline)

    def stop_pod(self, pod: Pod, *, deadline: float = DEADLINE) -> None:
        self.stub.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=deadline)

    def remove_pod(self, pod: Pod, *, deadline: float = DEADLINE) -> None:
        self.stub.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=deadline)

    def clear(self) -> None:
        """Stop and remove every pod that is left."""
        for item in self.stub.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=DEADLINE).items:
            pod = Pod(item.id, cri.PodSandboxConfig())
            self.stop_pod(pod)
            self.remove_pod(pod)


@contextlib.contextmanager
def driving(stack: Stack, image: str, handler: str = "") -> Iterator[Driver]:
    """A driver of running daemons, which have pulled the image; what it made is removed after."""
    stack.pull(image)
    with stack.runtime() as stub:
        made = Driver(stub, image, handler)
        yield made
        made.clear()
