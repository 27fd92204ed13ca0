"""Records as CRI messages, and the filters of lists."""

from __future__ import annotations

import signal

import pytest
from runtime.v1 import api_pb2
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.view import (
    container_message,
    container_status,
    match_container,
    match_sandbox,
    sandbox_status,
)
from triptych_runtime.view.cache import MessageCache


def record(**more: object) -> ContainerRecord:
    config = api_pb2.ContainerConfig(labels={"app": "web"})
    config.metadata.name = "c"
    config.image.image, config.image.user_specified_image = "sha256:1", "busybox:1"
    values: dict[str, object] = {
        "id": "ab" * 32,
        "sandbox_id": "cd" * 32,
        "phase": ContainerPhase.RUNNING,
        "config": config,
        "handler": "crun",
        "created_at": 1,
    }
    return ContainerRecord(**(values | more))  # type: ignore[arg-type]


def test_status_names_the_image_as_the_user_did() -> None:
    status = container_status(record(exit_code=3, reason="Error"))
    assert status.image.image == "busybox:1"
    assert (status.state, status.exit_code, status.reason) == (api_pb2.CONTAINER_RUNNING, 3, "Error")
    assert container_message(record()).image.image == "sha256:1"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (15, "SIGNAL_SIGTERM"),
        (9, "SIGNAL_SIGKILL"),
        (int(signal.SIGRTMIN), "SIGNAL_SIGRTMIN"),
        (int(signal.SIGRTMIN) + 3, "SIGNAL_SIGRTMINPLUS3"),
        (int(signal.SIGRTMAX), "SIGNAL_SIGRTMAX"),
        (0, "SIGNAL_RUNTIME_DEFAULT"),
    ],
)
def test_stop_signal(number: int, name: str) -> None:
    assert api_pb2.Signal.Name(container_status(record(stop_signal=number)).stop_signal) == name


def test_container_filter_conditions_are_all_needed() -> None:
    one = record()
    running = api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_RUNNING)
    assert match_container(one, api_pb2.ContainerFilter())
    assert match_container(
        one, api_pb2.ContainerFilter(id="abab", state=running, label_selector={"app": "web"})
    )
    assert not match_container(one, api_pb2.ContainerFilter(id="abab", label_selector={"app": "db"}))
    assert not match_container(one, api_pb2.ContainerFilter(pod_sandbox_id="ab"))
    created = api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_CREATED)
    assert not match_container(one, api_pb2.ContainerFilter(state=created))


def test_sandbox_status_and_filter() -> None:
    config = api_pb2.PodSandboxConfig(labels={"x": "y"})
    config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
    pod = SandboxRecord(
        id="e" * 64,
        phase=SandboxPhase.NOT_READY,
        config=config,
        handler="h",
        created_at=1,
        ips=("10.0.0.2", "fd::2"),
    )
    status = sandbox_status(pod)
    assert status.network.ip == "10.0.0.2"
    assert [ip.ip for ip in status.network.additional_ips] == ["fd::2"]
    assert status.linux.namespaces.options.pid == api_pb2.CONTAINER
    not_ready = api_pb2.PodSandboxStateValue(state=api_pb2.SANDBOX_NOTREADY)
    assert match_sandbox(pod, api_pb2.PodSandboxFilter(state=not_ready, label_selector={"x": "y"}))
    assert not match_sandbox(pod, api_pb2.PodSandboxFilter(label_selector={"x": "z"}))


def test_cache_follows_the_record() -> None:
    built: list[ContainerRecord] = []

    def build(item: ContainerRecord) -> int:
        built.append(item)
        return len(built)

    cache: MessageCache[ContainerRecord, int] = MessageCache(build)
    one, two = record(), record(exit_code=1)
    assert [cache.get("a", one), cache.get("a", one), cache.get("a", two), cache.get("a", two)] == [
        1,
        1,
        2,
        2,
    ]
