"""Lists that are joined from encoded entries are the messages that clients expect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc.aio
import pytest
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord, new_id
from triptych_runtime.node import Node
from triptych_runtime.readiness import Readiness
from triptych_runtime.rpc import chunks as chunks_module
from triptych_runtime.rpc.lists import handlers
from triptych_runtime.rpc.service import SERVICE
from triptych_runtime.store import Database, State
from triptych_runtime.view import container_message, list_entry, sandbox_message
from triptych_runtime.view.cache import MessageCache


def sandbox(name: str, phase: SandboxPhase = SandboxPhase.READY) -> SandboxRecord:
    config = api_pb2.PodSandboxConfig(labels={"app": name})
    config.metadata.name = config.metadata.uid = name
    return SandboxRecord(
        id=new_id(), phase=phase, config=config, handler="", created_at=1, cgroup_parent="", owns_cgroup=True
    )


def container(
    pod: SandboxRecord, name: str, phase: ContainerPhase = ContainerPhase.RUNNING
) -> ContainerRecord:
    config = api_pb2.ContainerConfig(labels={"name": name}, annotations={"long": "x" * 5000})
    config.metadata.name = name
    return ContainerRecord(
        id=new_id(),
        sandbox_id=pod.id,
        phase=phase,
        config=config,
        handler="crun",
        created_at=1,
        cgroups_path="",
        log_path="",
    )


@pytest.fixture
def pods() -> list[SandboxRecord]:
    return [sandbox("a"), sandbox("b", SandboxPhase.NOT_READY), sandbox("c", SandboxPhase.CREATING)]


@pytest.fixture
def containers(pods: list[SandboxRecord]) -> list[ContainerRecord]:
    made = [container(pods[0], f"c{number}") for number in range(7)]
    return [*made, container(pods[1], "gone", ContainerPhase.EXITED)]


@pytest.fixture
async def stub(
    tmp_path: Path, pods: list[SandboxRecord], containers: list[ContainerRecord]
) -> AsyncIterator[api_pb2_grpc.RuntimeServiceAsyncStub]:
    state = State(Database(tmp_path / "state.db"))
    state.load(pods, containers)
    node = SimpleNamespace(
        state=state,
        container_entries=MessageCache(lambda record: list_entry(container_message(record))),
        sandbox_entries=MessageCache(lambda record: list_entry(sandbox_message(record))),
    )
    ready = Readiness()
    ready.set_reconciled()
    server = grpc.aio.server()
    server.add_registered_method_handlers(SERVICE, handlers(cast(Node, node), ready))
    address = f"unix:{tmp_path}/socket"
    server.add_insecure_port(address)
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield cast(Any, api_pb2_grpc.RuntimeServiceStub(channel))
    await server.stop(0)


async def test_containers(
    stub: api_pb2_grpc.RuntimeServiceAsyncStub, containers: list[ContainerRecord]
) -> None:
    answer = await stub.ListContainers(api_pb2.ListContainersRequest())
    assert list(answer.containers) == [container_message(record) for record in containers]


async def test_filters(
    stub: api_pb2_grpc.RuntimeServiceAsyncStub, pods: list[SandboxRecord], containers: list[ContainerRecord]
) -> None:
    exited = api_pb2.ContainerFilter(state=api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_EXITED))
    answer = await stub.ListContainers(api_pb2.ListContainersRequest(filter=exited))
    assert [c.id for c in answer.containers] == [containers[-1].id]
    nothing = api_pb2.ContainerFilter(label_selector={"name": "nobody"})
    assert not (await stub.ListContainers(api_pb2.ListContainersRequest(filter=nothing))).containers
    labels = api_pb2.PodSandboxFilter(label_selector={"app": "a"})
    found = (await stub.ListPodSandbox(api_pb2.ListPodSandboxRequest(filter=labels))).items
    assert [pod.id for pod in found] == [pods[0].id]


async def test_a_pod_that_is_being_made_is_in_no_list(
    stub: api_pb2_grpc.RuntimeServiceAsyncStub, pods: list[SandboxRecord]
) -> None:
    answer = await stub.ListPodSandbox(api_pb2.ListPodSandboxRequest())
    assert list(answer.items) == [sandbox_message(pod) for pod in pods[:2]]


async def test_streams_bring_the_same_in_parts(
    stub: api_pb2_grpc.RuntimeServiceAsyncStub,
    containers: list[ContainerRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks_module, "CHUNK", 3)
    parts = [part async for part in stub.StreamContainers(api_pb2.StreamContainersRequest())]
    assert [len(part.containers) for part in parts] == [3, 3, 2]
    assert [c.id for part in parts for c in part.containers] == [record.id for record in containers]
    pods = [part async for part in stub.StreamPodSandboxes(api_pb2.StreamPodSandboxesRequest())]
    assert [len(part.pod_sandboxes) for part in pods] == [2]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 300_000])
def test_an_entry_of_any_length_is_an_element_of_the_list(size: int) -> None:
    entry = list_entry(api_pb2.Container(id="i" * size))
    parsed = api_pb2.ListContainersResponse.FromString(entry + entry)
    assert [len(c.id) for c in parsed.containers] == [size, size]
