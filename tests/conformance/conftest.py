"""A node that a kubelet would drive, and pods on it."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import Kubelet, connect, container_config, pod_config
from triptych_dev.leftovers import Marks
from triptych_dev.stack import Stack

_COUNTER = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.integration)


@dataclass(slots=True)
class Node:
    """Both endpoints, an image that is pulled, and what was made on the node."""

    kubelet: Kubelet
    image: str
    logs: Path
    marks: Marks
    sandboxes: list[str]

    @property
    def runtime(self) -> Any:
        return self.kubelet.runtime

    @property
    def images(self) -> Any:
        return self.kubelet.images

    async def pod(self, **options: Any) -> Pod:
        """Run a pod; it is removed when the test ends."""
        name = options.pop("name", f"pod-{next(_COUNTER)}")
        config = pod_config(name, log_directory=str(self.logs / name), **options)
        answer = await self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config))
        self.sandboxes.append(answer.pod_sandbox_id)
        self.marks.learn(answer.pod_sandbox_id)
        return Pod(self, answer.pod_sandbox_id, config)

    async def remove(self, sandbox: str) -> None:
        await self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        await self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


@dataclass(slots=True)
class Pod:
    """A pod that runs."""

    node: Node
    id: str
    config: cri.PodSandboxConfig

    async def create(self, name: str, command: Sequence[str] = ("sleep", "1000"), **options: Any) -> str:
        """Create a container."""
        config = container_config(name, self.node.image, command, **options)
        return await self.create_from(config)

    async def create_from(self, config: cri.ContainerConfig) -> str:
        request = cri.CreateContainerRequest(
            pod_sandbox_id=self.id, config=config, sandbox_config=self.config
        )
        return str((await self.node.runtime.CreateContainer(request)).container_id)

    async def start(self, name: str, command: Sequence[str] = ("sleep", "1000"), **options: Any) -> str:
        """Create and start a container."""
        container = await self.create(name, command, **options)
        await self.node.runtime.StartContainer(cri.StartContainerRequest(container_id=container))
        return container

    async def status(self, container: str) -> cri.ContainerStatus:
        request = cri.ContainerStatusRequest(container_id=container)
        answer: cri.ContainerStatusResponse = await self.node.runtime.ContainerStatus(request)
        return answer.status

    async def exec(self, container: str, *command: str, timeout: int = 10) -> cri.ExecSyncResponse:
        request = cri.ExecSyncRequest(container_id=container, cmd=command, timeout=timeout)
        answer: cri.ExecSyncResponse = await self.node.runtime.ExecSync(request)
        return answer


@asynccontextmanager
async def _node(stack: Stack, image: str, logs: Path, marks: Marks) -> Any:
    async with connect(stack.socket("runtime"), stack.socket("image")) as kubelet:
        spec = cri.ImageSpec(image=image)
        await kubelet.images.PullImage(cri.PullImageRequest(image=spec))
        made = Node(kubelet, image, logs, marks, [])
        try:
            yield made
        finally:
            for sandbox in made.sandboxes:
                await made.remove(sandbox)


@pytest.fixture
async def node(live_stack: Stack, live_image: str, tmp_path: Path, leak_check: Marks) -> Any:
    """The node; whatever a test makes on it must be gone in the end."""
    async with _node(live_stack, live_image, tmp_path, leak_check) as made:
        yield made


@pytest.fixture
def refused() -> Iterator[Callable[..., Awaitable[str]]]:
    """Await a call that must fail with a code; gives its message."""

    async def check(call: Awaitable[Any], *codes: grpc.StatusCode) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() in codes, raised.value.details()
        return raised.value.details() or ""

    yield check
