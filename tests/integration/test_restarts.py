"""Each daemon is stopped and started alone: the other two work on, and containers never notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev import streamclient
from triptych_dev.kubelet import Kubelet, connect, container_config, pod_config
from triptych_dev.leftovers import Marks
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

_SECONDS = 30.0 * PATIENCE


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with a container that counts."""

    sandbox: str
    container: str
    config: cri.PodSandboxConfig


async def soon(call: Callable[[], Awaitable[Any]], seconds: float = 2.0 * PATIENCE) -> Any:
    """The answer of a call that may be UNAVAILABLE for a moment, while a channel reconnects."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


async def pull(kubelet: Kubelet, image: str) -> None:
    spec = cri.ImageSpec(image=image)
    await kubelet.images.PullImage(cri.PullImageRequest(image=spec), timeout=_SECONDS)


async def create(kubelet: Kubelet, pod: Pod, name: str, image: str) -> str:
    config = container_config(name, image, ["sleep", "1000"])
    request = cri.CreateContainerRequest(
        pod_sandbox_id=pod.sandbox, config=config, sandbox_config=pod.config
    )
    answer = await kubelet.runtime.CreateContainer(request, timeout=_SECONDS)
    return str(answer.container_id)


async def run(kubelet: Kubelet, container: str, *command: str) -> str:
    request = cri.ExecSyncRequest(container_id=container, cmd=command, timeout=int(10 * PATIENCE))
    answer = await kubelet.runtime.ExecSync(request, timeout=_SECONDS)
    assert answer.exit_code == 0, answer
    return str(answer.stdout.decode().strip())


@asynccontextmanager
async def running(kubelet: Kubelet, image: str, marks: Marks, name: str) -> AsyncIterator[Pod]:
    await pull(kubelet, image)
    config = pod_config(name)
    sandbox = (await kubelet.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config))).pod_sandbox_id
    pod = Pod(sandbox, "", config)
    try:
        container = await create(kubelet, pod, "main", image)
        marks.learn(sandbox, container)
        await kubelet.runtime.StartContainer(cri.StartContainerRequest(container_id=container))
        yield Pod(sandbox, container, config)
    finally:
        await kubelet.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        await kubelet.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


async def started_at(kubelet: Kubelet, pod: Pod) -> int:
    status = await kubelet.runtime.ContainerStatus(
        cri.ContainerStatusRequest(container_id=pod.container), timeout=_SECONDS
    )
    assert status.status.state == cri.CONTAINER_RUNNING
    return int(status.status.started_at)


async def test_without_the_image_daemon_pods_work_on(
    live_stack: Stack, live_image: str, leak_check: Marks
) -> None:
    async with (
        connect(live_stack.socket("runtime"), live_stack.socket("image")) as kubelet,
        running(kubelet, live_image, leak_check, "without-image") as pod,
    ):
        live_stack.stop("image")
        try:
            assert await run(kubelet, pod.container, "hostname") == "without-image"
            await kubelet.runtime.ListContainerStats(cri.ListContainerStatsRequest(), timeout=_SECONDS)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await create(kubelet, pod, "late", live_image)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "image" in (raised.value.details() or "")
        finally:
            live_stack.start("image")
        assert await soon(lambda: create(kubelet, pod, "late", live_image))


async def test_without_the_streaming_daemon_all_but_streams_work(
    live_stack: Stack, live_image: str, leak_check: Marks
) -> None:
    async with (
        connect(live_stack.socket("runtime"), live_stack.socket("image")) as kubelet,
        running(kubelet, live_image, leak_check, "without-streaming") as pod,
    ):
        request = cri.ExecRequest(container_id=pod.container, cmd=["echo", "hi"], stdout=True)
        live_stack.stop("streaming")
        try:
            assert await run(kubelet, pod.container, "echo", "hi") == "hi"
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await kubelet.runtime.Exec(request, timeout=_SECONDS)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            live_stack.start("streaming")
        answer = await soon(lambda: kubelet.runtime.Exec(request, timeout=_SECONDS))
        url = answer.url
        assert (await streamclient.exec_spdy(url)).stdout == b"hi\n"


async def test_containers_do_not_notice_a_restart_of_the_runtime_daemon(
    live_stack: Stack, live_image: str, leak_check: Marks
) -> None:
    async with (
        connect(live_stack.socket("runtime"), live_stack.socket("image")) as kubelet,
        running(kubelet, live_image, leak_check, "restarted") as pod,
    ):
        before = await started_at(kubelet, pod)
        url = (
            await kubelet.runtime.Exec(
                cri.ExecRequest(container_id=pod.container, cmd=["echo", "later"], stdout=True)
            )
        ).url
        for stop in (live_stack.stop, live_stack.kill):
            stop("runtime")
            began = time.monotonic()
            live_stack.start("runtime")
            assert await run(kubelet, pod.container, "hostname") == "restarted"
            assert time.monotonic() - began < 15 * PATIENCE
            assert await started_at(kubelet, pod) == before
        assert (await streamclient.exec_spdy(url)).stdout == b"later\n"
