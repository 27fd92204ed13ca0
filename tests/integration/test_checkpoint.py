"""Checkpoint and restore with a real CRIU, and the refusal where it does not work."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import container_config, pod_config
from triptych_dev.leftovers import Marks
from triptych_dev.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DEADLINE = 60
# Counts in memory, so that only the process itself knows how far it is.
COUNT = ("sh", "-c", "rm /www/index.html; i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.1; done")


def _criu_works() -> bool:
    path = shutil.which("criu", path="/usr/sbin:/usr/bin:/sbin:/bin")
    return (
        path is not None
        and subprocess.run([path, "check"], capture_output=True, check=False).returncode == 0
    )


WORKS = os.geteuid() == 0 and shutil.which("runc") is not None and _criu_works()
needs_criu = pytest.mark.skipif(not WORKS, reason="CRIU does not work with this kernel, or is not here")


@pytest.fixture
def runtime(live_stack: Stack, live_image: str) -> Iterator[Any]:
    live_stack.pull(live_image)
    with live_stack.runtime() as stub:
        yield stub


def run_pod(stub: Any, name: str) -> tuple[str, cri.PodSandboxConfig]:
    config = pod_config(name)
    request = cri.RunPodSandboxRequest(config=config, runtime_handler="runc")
    return stub.RunPodSandbox(request, timeout=DEADLINE).pod_sandbox_id, config


def run_container(stub: Any, pod: tuple[str, cri.PodSandboxConfig], name: str, image: str) -> str:
    request = cri.CreateContainerRequest(
        pod_sandbox_id=pod[0], config=container_config(name, image, COUNT), sandbox_config=pod[1]
    )
    identity: str = stub.CreateContainer(request, timeout=DEADLINE).container_id
    stub.StartContainer(cri.StartContainerRequest(container_id=identity), timeout=DEADLINE)
    return identity


def count(stub: Any, container: str) -> int:
    """How far a container has counted; it is still at it."""
    end = time.monotonic() + 30
    first = None
    while time.monotonic() < end:
        request = cri.ExecSyncRequest(container_id=container, cmd=("cat", "/count"), timeout=30)
        text = stub.ExecSync(request, timeout=DEADLINE).stdout.strip()
        if text and first is None:
            first = int(text)
        elif text and first is not None and int(text) > first:
            return int(text)
        time.sleep(0.1)
    raise AssertionError(f"{container} does not count on from {first}")


def remove_pod(stub: Any, sandbox: str) -> None:
    stub.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox), timeout=DEADLINE)
    stub.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox), timeout=DEADLINE)


@pytest.fixture
def counting(runtime: Any, live_image: str, leak_check: Marks) -> Iterator[tuple[Any, str, str]]:
    """A pod with one container that counts: the stub, the sandbox and the container."""
    pod = run_pod(runtime, "counting")
    container = run_container(runtime, pod, "main", live_image)
    leak_check.learn(pod[0], container)
    count(runtime, container)
    yield runtime, pod[0], container
    remove_pod(runtime, pod[0])


@needs_criu
def test_checkpoint_a_container(counting: tuple[Any, str, str], tmp_path: Path) -> None:
    stub, _, container = counting
    location = tmp_path / "checkpoint.tar"
    before = count(stub, container)
    request = cri.CheckpointContainerRequest(container_id=container, location=str(location), timeout=60)
    stub.CheckpointContainer(request, timeout=90)
    assert stat.S_IMODE(location.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [location.name]
    with tarfile.open(location) as archive:
        names = set(archive.getnames())
        config = json.load(archive.extractfile("config.dump"))  # type: ignore[arg-type]
        spec = json.load(archive.extractfile("spec.dump"))  # type: ignore[arg-type]
        deleted = json.load(archive.extractfile("deleted.files"))  # type: ignore[arg-type]
        with tarfile.open(fileobj=archive.extractfile("rootfs-diff.tar")) as diff:
            assert "count" in diff.getnames()
    assert {"checkpoint/inventory.img", "dump.log", "stats-dump"} <= names
    assert config["id"] == container and config["checkpointedTime"]
    assert spec["process"]["args"][0] == "sh"
    assert deleted == ["www/index.html"]
    assert count(stub, container) > before


@needs_criu
def test_checkpoint_and_restore_a_pod(
    counting: tuple[Any, str, str], live_image: str, leak_check: Marks, tmp_path: Path
) -> None:
    stub, sandbox, container = counting
    reached = count(stub, container)
    output = tmp_path / "pod"
    output.mkdir()
    request = cri.CheckpointPodRequest(
        pod_sandbox_id=sandbox, output_path=str(output), container_ids=[container]
    )
    stub.CheckpointPod(request, timeout=120)
    assert count(stub, container) > reached
    stub.StopContainer(cri.StopContainerRequest(container_id=container), timeout=DEADLINE)

    restore = cri.RestorePodRequest(
        checkpoint_path=str(output),
        config=pod_config("restored"),
        runtime_handler="runc",
        container_configs=[container_config("main", live_image, COUNT)],
    )
    answer = stub.RestorePod(restore, timeout=120)
    (restored,) = answer.restored_containers
    leak_check.learn(answer.pod_sandbox_id, restored.container_id)
    try:
        assert restored.name == "main"
        status = cri.ContainerStatusRequest(container_id=restored.container_id)
        assert stub.ContainerStatus(status, timeout=DEADLINE).status.state == cri.CONTAINER_CREATED
        shutil.rmtree(output)
        start = cri.StartContainerRequest(container_id=restored.container_id)
        stub.StartContainer(start, timeout=DEADLINE)
        now = count(stub, restored.container_id)
        assert reached < now < reached + 600
        gone = cri.ExecSyncRequest(container_id=restored.container_id, cmd=("ls", "/www/index.html"))
        assert stub.ExecSync(gone, timeout=DEADLINE).exit_code != 0
    finally:
        remove_pod(stub, answer.pod_sandbox_id)


@needs_criu
def test_a_pod_checkpoint_that_is_refused_leaves_its_directory_alone(
    counting: tuple[Any, str, str], tmp_path: Path
) -> None:
    stub, sandbox, container = counting
    for request in (
        cri.CheckpointPodRequest(pod_sandbox_id=sandbox, output_path=str(tmp_path)),
        cri.CheckpointPodRequest(
            pod_sandbox_id=sandbox,
            output_path=str(tmp_path),
            container_ids=[container],
            options={"unknown": "1"},
        ),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.CheckpointPod(request, timeout=DEADLINE)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(tmp_path.iterdir()) == []
    count(stub, container)


@pytest.mark.skipif(WORKS, reason="CRIU works here")
def test_without_criu_it_is_a_failed_precondition(counting: tuple[Any, str, str], tmp_path: Path) -> None:
    stub, sandbox, container = counting
    output = tmp_path / "pod"
    output.mkdir()
    calls = (
        lambda: stub.CheckpointContainer(
            cri.CheckpointContainerRequest(container_id=container, location=str(tmp_path / "a.tar")),
            timeout=DEADLINE,
        ),
        lambda: stub.CheckpointPod(
            cri.CheckpointPodRequest(
                pod_sandbox_id=sandbox, output_path=str(output), container_ids=[container]
            ),
            timeout=DEADLINE,
        ),
    )
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "CRIU" in (caught.value.details() or "")
    assert [path.name for path in tmp_path.iterdir()] == ["pod"]
    count(stub, container)
