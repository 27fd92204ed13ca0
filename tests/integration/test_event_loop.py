"""The event loops never block: asyncio's debug mode tells of every callback that took long."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev import streamclient
from triptych_dev.kubelet import connect, container_config, pod_config
from triptych_dev.stack import DAEMONS, Stack
from triptych_dev.testing import needs

pytestmark = [pytest.mark.integration, pytest.mark.requires(*needs.LIVE), pytest.mark.timeout(180)]

_SLOW = re.compile(r"Executing (.*) took (\d+\.\d+) seconds")
_LIMIT = 0.5
"""Seconds; asyncio reports from 0.1 on, which a busy machine reaches without any blocking call."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    settings = {"streaming": {"http": {"listen": "127.0.0.1:0"}}}
    made = Stack(tmp_path / "loop", f"tloop{os.getpid()}", "10.93.0.0/16", settings)
    made.write_configuration()
    try:
        made.start(env={"PYTHONASYNCIODEBUG": "1"})
        yield made
    finally:
        made.clean()


async def test_a_pods_life_blocks_no_loop(stack: Stack, live_image: str) -> None:
    async with connect(stack.socket("runtime"), stack.socket("image")) as kubelet:
        spec = cri.ImageSpec(image=live_image)
        await kubelet.images.PullImage(cri.PullImageRequest(image=spec))
        for number in range(3):
            config = pod_config(f"pod{number}")
            sandbox = (
                await kubelet.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config))
            ).pod_sandbox_id
            request = cri.CreateContainerRequest(
                pod_sandbox_id=sandbox,
                config=container_config("c", live_image, ["sleep", "1000"]),
                sandbox_config=config,
            )
            container = (await kubelet.runtime.CreateContainer(request)).container_id
            await kubelet.runtime.StartContainer(cri.StartContainerRequest(container_id=container))
            await kubelet.runtime.ExecSync(cri.ExecSyncRequest(container_id=container, cmd=["true"]))
            url = (
                await kubelet.runtime.Exec(
                    cri.ExecRequest(container_id=container, cmd=["echo", "x"], stdout=True)
                )
            ).url
            assert (await streamclient.exec_spdy(url)).stdout == b"x\n"
            await kubelet.runtime.ListContainerStats(cri.ListContainerStatsRequest())
            await kubelet.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
            await kubelet.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
        await kubelet.images.RemoveImage(cri.RemoveImageRequest(image=spec))
    stack.stop()
    for daemon in DAEMONS:
        text = (stack.root / f"{daemon}.log").read_text()
        slow = [(what, float(seconds)) for what, seconds in _SLOW.findall(text)]
        assert [entry for entry in slow if entry[1] >= _LIMIT] == [], f"triptych-{daemon}"
        assert "was never awaited" not in text
