"""What the CRI says of containers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import container_config, parse_log
from triptych_dev.patience import PATIENCE

UNKNOWN = "e" * 64


async def exited(pod: Any, container: str, seconds: float = 10 * PATIENCE) -> cri.ContainerStatus:
    deadline = time.monotonic() + seconds
    while (status := await pod.status(container)).state != cri.CONTAINER_EXITED:
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.02)
    return status


async def test_states_and_times(node: Any) -> None:
    pod = await node.pod()
    container = await pod.create("main", ["sh", "-c", "exit 7"])
    created = await pod.status(container)
    assert (created.state, created.started_at, created.finished_at) == (cri.CONTAINER_CREATED, 0, 0)
    await node.runtime.StartContainer(cri.StartContainerRequest(container_id=container))
    status = await exited(pod, container)
    assert (status.exit_code, status.reason) == (7, "Error")
    assert 0 < status.created_at <= status.started_at <= status.finished_at
    good = await pod.start("good", ["true"])
    assert ((await exited(pod, good)).exit_code, (await exited(pod, good)).reason) == (0, "Completed")


async def test_the_image_is_told_in_every_form(node: Any) -> None:
    pod = await node.pod()
    container = await pod.create("main")
    status = await pod.status(container)
    image = (
        await node.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=node.image)))
    ).image
    assert status.image_id == image.id
    assert status.image.image == node.image
    assert status.image_ref in (image.id, *image.repo_digests)
    (listed,) = (
        await node.runtime.ListContainers(
            cri.ListContainersRequest(filter=cri.ContainerFilter(id=container))
        )
    ).containers
    assert listed.image_id == image.id


async def test_filters_and_the_stream(node: Any) -> None:
    pod, other = await node.pod(), await node.pod()
    created, running = await pod.create("created"), await pod.start("running")
    elsewhere = await other.create("elsewhere")

    async def listed(**filters: Any) -> set[str]:
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(**filters))
        return {c.id for c in (await node.runtime.ListContainers(request)).containers}

    assert {created, running, elsewhere} <= await listed()
    assert await listed(pod_sandbox_id=pod.id) == {created, running}
    state = cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)
    assert await listed(pod_sandbox_id=pod.id, state=state) == {running}
    assert await listed(id=created[:16]) == {created}
    labels = {"io.kubernetes.container.name": "running"}
    assert await listed(pod_sandbox_id=pod.id, label_selector=labels) == {running}
    streamed = set()
    async for batch in node.runtime.StreamContainers(cri.StreamContainersRequest()):
        streamed |= {c.id for c in batch.containers}
    assert streamed == await listed()


async def test_stop_and_remove_are_idempotent(node: Any) -> None:
    pod = await node.pod()
    container = await pod.start("main")
    for _ in range(2):
        await node.runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=0))
    assert (await pod.status(container)).exit_code == 137
    for _ in range(2):
        await node.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container))
    await node.runtime.StopContainer(cri.StopContainerRequest(container_id=UNKNOWN, timeout=0))
    await node.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=UNKNOWN))


async def test_a_stop_gives_the_process_its_time(node: Any) -> None:
    pod = await node.pod()
    polite = await pod.start("polite", ["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"])
    deaf = await pod.start("deaf", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await node.runtime.StopContainer(cri.StopContainerRequest(container_id=polite, timeout=100))
    assert time.monotonic() - began < 50 * PATIENCE
    assert (await pod.status(polite)).exit_code == 3
    began = time.monotonic()
    await node.runtime.StopContainer(cri.StopContainerRequest(container_id=deaf, timeout=1))
    assert 0.9 < time.monotonic() - began < 50 * PATIENCE
    assert (await pod.status(deaf)).exit_code == 137


async def test_removing_a_running_container_kills_it(node: Any) -> None:
    pod = await node.pod()
    container = await pod.start("main")
    await node.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container))
    left = (await node.runtime.ListContainers(cri.ListContainersRequest())).containers
    assert container not in {c.id for c in left}


async def test_a_retried_create_joins_the_first(node: Any) -> None:
    pod = await node.pod()
    first = await pod.create("main")
    assert await pod.create("main") == first
    config = container_config("main", node.image, ["sleep", "1000"])
    config.metadata.attempt = 1
    assert await pod.create_from(config) != first


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        ("ContainerStatus", cri.ContainerStatusRequest(container_id=UNKNOWN)),
        ("StartContainer", cri.StartContainerRequest(container_id=UNKNOWN)),
        ("ExecSync", cri.ExecSyncRequest(container_id=UNKNOWN, cmd=["true"])),
        ("Exec", cri.ExecRequest(container_id=UNKNOWN, cmd=["true"], stdout=True)),
        ("Attach", cri.AttachRequest(container_id=UNKNOWN, stdout=True)),
        ("ReopenContainerLog", cri.ReopenContainerLogRequest(container_id=UNKNOWN)),
        ("ContainerStats", cri.ContainerStatsRequest(container_id=UNKNOWN)),
        ("UpdateContainerResources", cri.UpdateContainerResourcesRequest(container_id=UNKNOWN)),
    ],
)
async def test_an_unknown_container_is_not_found(node: Any, refused: Any, call: str, request_: Any) -> None:
    message = await refused(getattr(node.runtime, call)(request_), StatusCode.NOT_FOUND)
    assert UNKNOWN[:12] in message


async def test_a_container_in_no_pod_and_of_no_image(node: Any, refused: Any) -> None:
    pod = await node.pod()
    config = container_config("main", "sha256:" + "0" * 64, ["true"])
    request = cri.CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
    await refused(node.runtime.CreateContainer(request), StatusCode.NOT_FOUND)
    request.config.image.image = node.image
    request.pod_sandbox_id = UNKNOWN
    await refused(node.runtime.CreateContainer(request), StatusCode.NOT_FOUND)


async def test_a_command_that_is_not_there_leaves_nothing(node: Any, refused: Any) -> None:
    pod = await node.pod()
    config = container_config("main", node.image, ["/no/such/program"])
    try:
        container = await pod.create_from(config)
    except Exception as error:
        assert "/no/such/program" in str(error)
        return
    request = cri.StartContainerRequest(container_id=container)
    message = await refused(node.runtime.StartContainer(request), *StatusCode)
    assert "/no/such/program" in message


async def test_exec_sync(node: Any, refused: Any) -> None:
    pod = await node.pod()
    container = await pod.start("main", env={"COLOUR": "blue"})
    answer = await pod.exec(container, "sh", "-c", "echo $COLOUR; echo no >&2; exit 5")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (5, b"blue\n", b"no\n")
    began = time.monotonic()
    request = cri.ExecSyncRequest(container_id=container, cmd=["sleep", "4321"], timeout=1)
    await refused(node.runtime.ExecSync(request), StatusCode.DEADLINE_EXCEEDED)
    assert time.monotonic() - began < 50 * PATIENCE
    assert b"4321" not in (await pod.exec(container, "ps")).stdout
    await refused(
        node.runtime.ExecSync(cri.ExecSyncRequest(container_id=container)), StatusCode.INVALID_ARGUMENT
    )


async def test_logs_have_the_form_of_the_cri(node: Any) -> None:
    pod = await node.pod()
    container = await pod.start("main", ["sh", "-c", "echo out; echo err >&2; printf unfinished"])
    await exited(pod, container)
    path = Path((await pod.status(container)).log_path)
    lines = parse_log(path.read_text())
    assert {(line.stream, line.text) for line in lines if line.whole} >= {
        ("stdout", "out"),
        ("stderr", "err"),
    }
    assert any(line.text == "unfinished" for line in lines)


async def test_reopening_a_log_needs_a_running_container(node: Any, refused: Any) -> None:
    pod = await node.pod()
    container = await pod.start("main", ["true"])
    await exited(pod, container)
    request = cri.ReopenContainerLogRequest(container_id=container)
    await refused(
        node.runtime.ReopenContainerLog(request), StatusCode.FAILED_PRECONDITION, StatusCode.UNKNOWN
    )


async def test_mounts(node: Any, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/file").write_text("from the node\n")
    mounts = [
        cri.Mount(container_path="/rw", host_path=str(tmp_path / "shared")),
        cri.Mount(container_path="/ro", host_path=str(tmp_path / "shared"), readonly=True),
        cri.Mount(container_path="/made", host_path=str(tmp_path / "not/there/yet")),
    ]
    pod = await node.pod()
    container = await pod.start("main", mounts=mounts)
    assert (await pod.exec(container, "cat", "/ro/file")).stdout == b"from the node\n"
    assert (await pod.exec(container, "touch", "/rw/new", "/made/x")).exit_code == 0
    assert (await pod.exec(container, "touch", "/ro/new2")).exit_code != 0
    assert (tmp_path / "shared/new").exists() and (tmp_path / "not/there/yet/x").exists()
    shown = {mount.container_path: mount.readonly for mount in (await pod.status(container)).mounts}
    assert shown["/rw"] is False and shown["/ro"] is True


async def test_limits_reach_the_kernel_and_can_change(node: Any) -> None:
    pod = await node.pod()
    container = await pod.start("main", memory_bytes=64 << 20)
    assert (await pod.status(container)).resources.linux.memory_limit_in_bytes == 64 << 20
    resources = cri.LinuxContainerResources(memory_limit_in_bytes=96 << 20)
    await node.runtime.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=container, linux=resources)
    )
    assert (await pod.status(container)).resources.linux.memory_limit_in_bytes == 96 << 20
    stats = await node.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=container))
    assert stats.stats.memory.available_bytes.value <= 96 << 20


async def test_out_of_memory_is_told(node: Any) -> None:
    pod = await node.pod()
    hungry = ["sh", "-c", "x=a; while :; do x=$x$x; done"]
    container = await pod.start("main", hungry, memory_bytes=24 << 20)
    status = await exited(pod, container, 30)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


async def test_users(node: Any, refused: Any) -> None:
    pod = await node.pod()
    config = container_config("nobody", node.image, ["sleep", "1000"])
    config.linux.security_context.run_as_user.value = 65534
    config.linux.security_context.run_as_group.value = 100
    config.linux.security_context.supplemental_groups.append(4242)
    container = await pod.create_from(config)
    await node.runtime.StartContainer(cri.StartContainerRequest(container_id=container))
    shown = (await pod.exec(container, "sh", "-c", "id -u; id -g; id -G")).stdout.decode().split("\n")
    assert (shown[0], shown[1]) == ("65534", "100")
    assert {"100", "4242"} <= set(shown[2].split())
    user = (await pod.status(container)).user.linux
    assert (user.uid, user.gid) == (65534, 100)
    config = container_config("groupless", node.image, ["true"])
    config.linux.security_context.run_as_group.value = 100
    await refused(pod.create_from(config), StatusCode.INVALID_ARGUMENT)
