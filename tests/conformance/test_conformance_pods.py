"""What the CRI says of pod sandboxes."""

from __future__ import annotations

from typing import Any

import pytest
from grpc import StatusCode
from runtime.v1 import api_pb2 as cri

UNKNOWN = "f" * 64


async def listed(node: Any, **filters: Any) -> list[str]:
    request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(**filters))
    return [pod.id for pod in (await node.runtime.ListPodSandbox(request)).items]


async def test_a_sandbox_is_ready_with_an_address(node: Any) -> None:
    pod = await node.pod(labels={"tier": "front"})
    assert len(pod.id) == 64
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)
    answer = await node.runtime.PodSandboxStatus(request)
    status = answer.status
    assert status.state == cri.SANDBOX_READY
    assert status.metadata == pod.config.metadata
    assert dict(status.labels) == dict(pod.config.labels)
    assert status.created_at > 0
    assert status.network.ip
    assert answer.info
    quiet = await node.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id))
    assert not quiet.info


async def test_filters_are_all_to_hold(node: Any) -> None:
    front, back = await node.pod(labels={"tier": "front"}), await node.pod(labels={"tier": "back"})
    assert {front.id, back.id} <= set(await listed(node))
    assert await listed(node, label_selector={"tier": "front"}) == [front.id]
    assert await listed(node, id=back.id[:20]) == [back.id]
    assert await listed(node, id=back.id, label_selector={"tier": "front"}) == []
    await node.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=front.id))
    ready = cri.PodSandboxStateValue(state=cri.SANDBOX_READY)
    assert front.id not in await listed(node, state=ready)
    assert back.id in await listed(node, state=ready)


async def test_the_stream_gives_what_the_list_gives(node: Any) -> None:
    await node.pod()
    streamed = []
    async for batch in node.runtime.StreamPodSandboxes(cri.StreamPodSandboxesRequest()):
        streamed += [pod.id for pod in batch.pod_sandboxes]
    assert sorted(streamed) == sorted(await listed(node))


async def test_stop_and_remove_are_idempotent(node: Any) -> None:
    pod = await node.pod()
    for _ in range(2):
        await node.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    status = await node.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id))
    assert status.status.state == cri.SANDBOX_NOTREADY
    for _ in range(2):
        await node.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    assert pod.id not in await listed(node)
    await node.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=UNKNOWN))
    await node.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=UNKNOWN))


async def test_an_unknown_sandbox_has_no_status(node: Any, refused: Any) -> None:
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=UNKNOWN)
    assert UNKNOWN[:12] in await refused(node.runtime.PodSandboxStatus(request), StatusCode.NOT_FOUND)


async def test_removing_a_running_pod_removes_its_containers(node: Any) -> None:
    pod = await node.pod()
    container = await pod.start("main")
    await node.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    left = (await node.runtime.ListContainers(cri.ListContainersRequest())).containers
    assert container not in {c.id for c in left}


async def test_a_retried_run_joins_the_first(node: Any) -> None:
    pod = await node.pod()
    again = await node.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=pod.config))
    assert again.pod_sandbox_id == pod.id


@pytest.mark.parametrize("missing", ["metadata", "config"])
async def test_a_config_without_its_parts_is_refused(node: Any, refused: Any, missing: str) -> None:
    request = cri.RunPodSandboxRequest()
    if missing == "metadata":
        request.config.hostname = "x"
    await refused(node.runtime.RunPodSandbox(request), StatusCode.INVALID_ARGUMENT)


async def test_an_unknown_handler_is_refused_by_name(node: Any, refused: Any) -> None:
    pod = await node.pod()
    config = cri.PodSandboxConfig()
    config.CopyFrom(pod.config)
    config.metadata.name = "other"
    request = cri.RunPodSandboxRequest(config=config, runtime_handler="nobody")
    message = await refused(
        node.runtime.RunPodSandbox(request), StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND
    )
    assert "nobody" in message


async def test_pods_share_what_they_should(node: Any) -> None:
    pod = await node.pod()
    first, second = await pod.start("first"), await pod.start("second")
    assert (await pod.exec(first, "hostname")).stdout == (await pod.exec(second, "hostname")).stdout
    for name, same in (("net", True), ("ipc", True), ("uts", True), ("pid", False), ("mnt", False)):
        links = [(await pod.exec(c, "readlink", f"/proc/self/ns/{name}")).stdout for c in (first, second)]
        assert (links[0] == links[1]) is same, name


async def test_resolv_conf_is_what_was_asked_for(node: Any) -> None:
    pod = await node.pod()
    text = (await pod.exec(await pod.start("main"), "cat", "/etc/resolv.conf")).stdout.decode()
    assert text.splitlines() == ["search cluster.local", "nameserver 10.96.0.10", "options ndots:5"]


async def test_sysctls_of_the_pod(node: Any) -> None:
    config_options = {"name": "sysctls"}
    pod = await node.pod(**config_options)
    config = cri.PodSandboxConfig()
    config.CopyFrom(pod.config)
    config.metadata.name = config.metadata.uid = "tuned"
    config.linux.sysctls["net.core.somaxconn"] = "77"
    answer = await node.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config))
    node.sandboxes.append(answer.pod_sandbox_id)
    tuned = type(pod)(node, answer.pod_sandbox_id, config)
    shown = await tuned.exec(await tuned.start("main"), "cat", "/proc/sys/net/core/somaxconn")
    assert shown.stdout == b"77\n"


async def test_status_of_the_node(node: Any) -> None:
    status = await node.runtime.Status(cri.StatusRequest(verbose=True))
    conditions = {condition.type: condition.status for condition in status.status.conditions}
    assert conditions["RuntimeReady"] and conditions["NetworkReady"]
    names = [handler.name for handler in status.runtime_handlers]
    assert "" in names and len(names) == len(set(names))
    assert status.info
    config = await node.runtime.RuntimeConfig(cri.RuntimeConfigRequest())
    assert config.linux.cgroup_driver in (cri.SYSTEMD, cri.CGROUPFS)
    version = await node.runtime.Version(cri.VersionRequest(version="v1"))
    assert version.version == "0.1.0" and version.runtime_api_version == "v1"
