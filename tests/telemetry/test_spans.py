"""One pod's whole life is one trace, with a span for every step that can be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev import kubelet, streamclient
from triptych_dev.collector import Collector, collecting, new_trace
from triptych_dev.stack import Stack
from triptych_dev.testing import needs, turns

pytestmark = [pytest.mark.integration, pytest.mark.requires(*needs.LIVE), pytest.mark.timeout(240)]

STEPS = {
    "triptych-image": {
        "pull",
        "pull.resolve",
        "pull.layer",
        "pull.unpack",
        "pull.commit",
        "registry fetch",
        "runtime.v1.ImageService/PullImage",
        "triptych.rootfs.v1.RootfsService/PrepareRootfs",
    },
    "triptych-runtime": {
        "create namespaces",
        "setup network",
        "cni.add",
        "cni.del",
        "prepare rootfs",
        "write bundle",
        "runtime create",
        "runtime start",
        "exec",
        "runtime.v1.RuntimeService/RunPodSandbox",
        "runtime.v1.RuntimeService/Exec",
        "triptych.rootfs.v1.RootfsService/PrepareRootfs",
    },
    "triptych-streaming": {"session", "runtime exec"},
}
"""What docs/telemetry.md and docs/metrics.md name."""


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[Stack, Collector]]:
    turn = turns.take(50, lambda number: Path(f"/run/live{number}-test").exists())
    with collecting() as collector:
        telemetry: dict[str, Any] = {"telemetry": {"endpoint": collector.endpoint}}
        overrides = {name: dict(telemetry) for name in ("image", "runtime", "streaming")}
        overrides["streaming"]["http"] = {"listen": "127.0.0.1:0"}
        stack = Stack(tmp_path / "stack", f"live{turn}-test", f"10.{200 + turn}.0.0/16", overrides)
        stack.write_configuration()
        try:
            stack.start()
            yield stack, collector
        finally:
            stack.clean()


async def _live(stack: Stack, image: str, metadata: tuple[tuple[str, str], ...]) -> None:
    asked: dict[str, Any] = {"timeout": 60, "metadata": metadata}
    async with kubelet.connect(stack.socket("runtime"), stack.socket("image")) as node:
        await node.images.PullImage(cri.PullImageRequest(image=cri.ImageSpec(image=image)), **asked)
        config = kubelet.pod_config("traced")
        ran = await node.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), **asked)
        container = kubelet.container_config("sleep", image, ["sleep", "1000"])
        made = await node.runtime.CreateContainer(
            cri.CreateContainerRequest(
                pod_sandbox_id=ran.pod_sandbox_id, config=container, sandbox_config=config
            ),
            **asked,
        )
        name = made.container_id
        await node.runtime.StartContainer(cri.StartContainerRequest(container_id=name), **asked)
        sync = cri.ExecSyncRequest(container_id=name, cmd=["echo", "hello"], timeout=30)
        assert (await node.runtime.ExecSync(sync, **asked)).stdout == b"hello\n"
        request = cri.ExecRequest(container_id=name, cmd=["echo", "hello"], stdout=True, stderr=True)
        opened = await node.runtime.Exec(request, **asked)
        assert (await streamclient.exec_spdy(opened.url)).stdout == b"hello\n"
        pod = ran.pod_sandbox_id
        await node.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod), **asked)
        await node.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod), **asked)


def test_a_pods_life_is_one_trace(traced: tuple[Stack, Collector], live_image: str) -> None:
    stack, collector = traced
    trace, metadata = new_trace()
    asyncio.run(_live(stack, live_image, metadata))
    stack.stop()  # sends what is held back
    spans = collector.spans(trace)
    found: dict[str, set[str]] = {}
    for span in spans:
        found.setdefault(span.service, set()).add(span.name)
    missing = {service: names - found.get(service, set()) for service, names in STEPS.items()}
    assert not any(missing.values()), missing
    caller = metadata[0][1].split("-")[2]
    known = {span.identity for span in spans} | {caller}
    assert [span.name for span in spans if span.parent not in known] == []
    assert [span.name for span in spans if span.failure] == []
    assert all(span.start <= span.end for span in spans)
