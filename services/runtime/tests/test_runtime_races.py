"""The life cycle against itself: what happens when steps meet, hang, fail and are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.patience import PATIENCE
from triptych_errors import Internal
from triptych_linux.process import shielded
from triptych_runtime import clock, recovery
from triptych_runtime.cgroups.groupkill import GroupKills
from triptych_runtime.checkpoint.manifest import VERSION, PodManifest, write_manifest
from triptych_runtime.containers import handle_exit
from triptych_runtime.containers.exits import on_exit
from triptych_runtime.errors import (
    CalledOff,
    ContainerNotRunning,
    HandlerUnusable,
    NameInUse,
    OperationTimeout,
    RuntimeFailed,
    SandboxNotReady,
    StoreFailed,
    WrongContainerState,
)
from triptych_runtime.events import EventBus
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.monitor import Exit, Started
from triptych_runtime.namespaces import PinnedNamespaces
from triptych_runtime.node import Node, Paths
from triptych_runtime.ociruntime import Handler, Handlers, OciRuntime
from triptych_runtime.rpc.create_container import create_container
from triptych_runtime.rpc.exec import exec_
from triptych_runtime.rpc.exec_sync import exec_sync
from triptych_runtime.rpc.remove_container import remove_container
from triptych_runtime.rpc.remove_pod_sandbox import remove_pod_sandbox
from triptych_runtime.rpc.reopen_container_log import reopen_container_log
from triptych_runtime.rpc.restore_pod import restore_pod
from triptych_runtime.rpc.run_pod_sandbox import run_pod_sandbox
from triptych_runtime.rpc.start_container import start_container
from triptych_runtime.rpc.stop_container import stop_container
from triptych_runtime.rpc.stop_pod_sandbox import stop_pod_sandbox
from triptych_runtime.rpc.update_pod_sandbox_resources import update_pod_sandbox_resources
from triptych_runtime.sandboxes import on_init_end
from triptych_runtime.settings import DeadlineSettings, Settings
from triptych_runtime.spec import HostFacts
from triptych_runtime.store import Database, State

POD, APP = "a" * 64, "b" * 64


@dataclass
class Steps:
    """What the fakes were asked to do, and what they shall do when asked: wait, fail."""

    done: list[str] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    begun: dict[str, asyncio.Event] = field(default_factory=dict)

    def hold(self, step: str) -> asyncio.Event:
        """The step waits until the event is set."""
        self.begun[step] = asyncio.Event()
        return self.gates.setdefault(step, asyncio.Event())

    async def __call__(self, step: str) -> None:
        self.done.append(step)
        if step in self.begun:
            self.begun[step].set()
        if step in self.gates:
            await self.gates[step].wait()
        if step in self.errors:
            raise self.errors[step]
        await asyncio.sleep(0)


class FakeCgroup:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def procs(self) -> list[int]:
        return []

    def exists(self) -> bool:
        return False

    async def kill(self) -> None:
        await self._steps("cgroup.kill")

    async def remove(self) -> None:
        await self._steps("cgroup.remove")


class FakeOom:
    def add(self, cgroups_path: str) -> None:
        return None

    def take(self, cgroups_path: str) -> int:
        return 0


class FakeCgroups:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.oom = FakeOom()
        self.group_kills = GroupKills(lambda path: self.resolve(path), enabled=False)  # type: ignore[arg-type,return-value]

    def spec_annotations(self, resources: object) -> dict[str, str]:
        return {}

    def default_parent(self, sandbox_id: str) -> str:
        return f"/triptych/{sandbox_id}"

    def container_path(self, parent: str, container_id: str) -> str:
        return f"{parent}/{container_id}"

    def resolve(self, path: str) -> FakeCgroup:
        return FakeCgroup(self._steps)

    async def create_pod(self, *_: object) -> None:
        await self._steps("cgroups.create_pod")

    async def update_pod(self, *_: object) -> None:
        await self._steps("cgroups.update_pod")

    async def remove_pod(self, _: str) -> None:
        await self._steps("cgroups.remove_pod")


class FakeNamespaces:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def check(self, _: object) -> None:
        return None

    async def create(self, sandbox_id: str, _: object) -> PinnedNamespaces:
        await self._steps("namespaces.create")
        return self.get(sandbox_id)

    def get(self, sandbox_id: str) -> PinnedNamespaces:
        return PinnedNamespaces(
            sandbox_id=sandbox_id, net=Path("/x/net"), ipc=None, uts=None, user=None, pid=None
        )

    async def finish(self, *_: object) -> None:
        await self._steps("namespaces.finish")

    async def destroy(self, _: str) -> None:
        await self._steps("namespaces.destroy")


class FakeFiles:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    async def create(self, *_: object) -> None:
        await self._steps("files.create")

    async def destroy(self, _: str) -> None:
        await self._steps("files.destroy")


class FakeNetwork:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.ips = ["10.0.0.2"]

    async def setup(self, _: object) -> FakeNetwork:
        await self._steps("network.setup")
        return self

    async def teardown(self, *_: object) -> None:
        # As the real one: to its end even when the caller is cancelled.
        await shielded(self._steps("network.teardown"), 60)


class FakeImages:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    async def prepare_rootfs(self, *_: object, **__: object) -> None:
        await self._steps("images.prepare")
        raise Internal("this fake has no images")

    async def remove(self, _: str, *, prefix: bool = False) -> None:
        await self._steps("images.remove")


class FakeConmon:
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    async def create(self, *_: object, **__: object) -> Started:
        await self._steps("conmon.create")
        return Started(os.getpid(), 0)


class FakeExits:
    """Containers here never end by themselves; a SIGKILL is noted only."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.on_signal: Any = None

    def add(self, *_: object) -> None:
        return None

    forget = remove_file = add

    def ending(self, _: str) -> bool:
        return False

    def signal(self, container_id: str, number: int) -> bool:
        self._steps.done.append(f"signal {number}")
        if self.on_signal is not None:
            self.on_signal(container_id, number)
        return True


class FakeRuntime(OciRuntime):
    """An OCI runtime without processes."""

    __slots__ = ()
    steps = Steps()

    async def start(self, container_id: str) -> None:
        await FakeRuntime.steps("runtime.start")

    async def delete(self, container_id: str, *, deadline: float | None = None) -> None:
        await FakeRuntime.steps("runtime.delete")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps()
    monkeypatch.setattr(FakeRuntime, "steps", made)
    return made


@pytest.fixture
async def node(tmp_path: Path, steps: Steps) -> AsyncIterator[Node]:
    database = Database(tmp_path / "state.db")
    await database.open()
    deadlines = DeadlineSettings(create=60 * PATIENCE, kill=0.2)
    runtime = FakeRuntime("crun", "/no/crun", tmp_path / "oci")
    made = Node(
        settings=Settings(deadlines=deadlines),
        paths=Paths(tmp_path / "root", tmp_path / "state"),
        host=HostFacts(),
        database=database,
        state=State(database),
        handlers=Handlers({"crun": Handler("crun", runtime)}, "crun"),
        cgroups=cast(Any, FakeCgroups(steps)),
        namespaces=cast(Any, FakeNamespaces(steps)),
        files=cast(Any, FakeFiles(steps)),
        init=cast(Any, None),
        network=cast(Any, FakeNetwork(steps)),
        conmon=cast(Any, FakeConmon(steps)),
        exits=cast(Any, FakeExits(steps)),
        events=EventBus(),
        stats=cast(Any, None),
        images=cast(Any, FakeImages(steps)),
        streaming=cast(Any, None),
        criu=cast(Any, None),
    )
    yield made
    for gate in steps.gates.values():
        gate.set()
    await made.flights.drain(5, 5)
    await database.close()


def pod_config(name: str = "pod") -> cri.PodSandboxConfig:
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name=name, uid="u", namespace="n"))
    config.linux.security_context.namespace_options.pid = cri.CONTAINER
    return config


def app_config(name: str = "app") -> cri.ContainerConfig:
    config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name=name), image=cri.ImageSpec(image="i"))
    config.linux.security_context.namespace_options.pid = cri.CONTAINER
    return config


async def a_pod(node: Node, **more: Any) -> SandboxRecord:
    """A ready pod in the state."""
    values: dict[str, Any] = {
        "id": POD,
        "phase": SandboxPhase.READY,
        "config": pod_config(),
        "handler": "",
        "created_at": 1,
        "network_ready": True,
        "namespaces": {"net": "/x/net"},
        "owns_cgroup": True,
        "cgroup_parent": f"/triptych/{POD}",
    }
    record = SandboxRecord(**(values | more))
    await node.state.save(record)
    return record


async def a_container(node: Node, phase: ContainerPhase = ContainerPhase.CREATED) -> ContainerRecord:
    """A container of that pod in the state."""
    record = ContainerRecord(
        id=APP, sandbox_id=POD, phase=phase, config=app_config(), handler="crun", created_at=1
    )
    await node.state.save(record)
    return record


def run_request() -> cri.RunPodSandboxRequest:
    return cri.RunPodSandboxRequest(config=pod_config())


def create_request() -> cri.CreateContainerRequest:
    return cri.CreateContainerRequest(pod_sandbox_id=POD, config=app_config(), sandbox_config=pod_config())


async def stored(node: Node) -> tuple[dict[str, str], dict[str, str]]:
    """Phases on disk by ID, of sandboxes and of containers."""
    again = Database(node.database._path)
    snapshot = await again.open()
    await again.close()
    pods = {s.id: s.phase.value for s in snapshot.sandboxes}
    return pods, {c.id: c.phase.value for c in snapshot.containers}


async def test_a_failing_network_is_the_error_and_all_is_undone(node: Node, steps: Steps) -> None:
    steps.errors["network.setup"] = Internal("CNI plugin bridge: no more addresses")
    with pytest.raises(Internal, match="^CNI plugin bridge: no more addresses$"):
        await run_pod_sandbox(node, run_request())
    undone = ("network.teardown", "namespaces.destroy", "files.destroy", "cgroups.remove_pod")
    assert [s for s in steps.done if s in undone] == list(undone)
    assert not node.state.sandboxes
    assert await stored(node) == ({}, {})
    steps.errors.clear()
    assert (await run_pod_sandbox(node, run_request())).pod_sandbox_id in node.state.sandboxes


@pytest.mark.parametrize("step", ["files.create", "cgroups.create_pod"])
async def test_what_is_still_made_when_the_network_fails_is_undone_after_it(
    node: Node, steps: Steps, step: str
) -> None:
    steps.errors["network.setup"] = Internal("no ADD")
    gate = steps.hold(step)
    run = asyncio.create_task(run_pod_sandbox(node, run_request()))
    await steps.begun[step].wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not {"network.teardown", "files.destroy", "cgroups.remove_pod"} & set(steps.done)
    gate.set()
    with pytest.raises(Internal, match="^no ADD$"):
        await run
    assert {"network.teardown", "files.destroy", "cgroups.remove_pod"} <= set(steps.done)


async def test_an_undo_goes_on_after_a_step_that_fails(node: Node, steps: Steps) -> None:
    steps.errors["network.setup"] = Internal("no ADD")
    steps.errors["network.teardown"] = Internal("no DEL")
    with pytest.raises(Internal, match="^no ADD$"):
        await run_pod_sandbox(node, run_request())
    assert {"namespaces.destroy", "files.destroy", "cgroups.remove_pod"} <= set(steps.done)
    assert not node.state.sandboxes


async def test_a_plugin_that_hangs_in_the_undo_keeps_only_the_network(
    node: Node, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = importlib.import_module("triptych_runtime.sandboxes.release")
    assert release.NETWORK_PATIENCE <= release.STEP_DEADLINE / 2
    monkeypatch.setattr(release, "NETWORK_PATIENCE", 0.05)
    steps.errors["network.setup"] = Internal("no ADD")
    gate = steps.hold("network.teardown")
    with pytest.raises(Internal, match="^no ADD$"):
        await run_pod_sandbox(node, run_request())
    assert {"namespaces.destroy", "files.destroy", "cgroups.remove_pod"} <= set(steps.done)
    assert not node.state.sandboxes
    assert await stored(node) == ({}, {})
    assert len(node.flights) == 1
    gate.set()
    await node.flights.settled_below("detach ")


async def test_a_cancelled_stop_comes_to_its_end(node: Node, steps: Steps) -> None:
    await a_pod(node)
    gate = steps.hold("network.teardown")
    stop = asyncio.create_task(stop_pod_sandbox(node, cri.StopPodSandboxRequest(pod_sandbox_id=POD)))
    await steps.begun["network.teardown"].wait()
    node.flights.call_off("stop sandbox ", SandboxNotReady(POD))
    gate.set()
    with pytest.raises(SandboxNotReady):
        await stop
    assert {"files.destroy", "cgroups.remove_pod"} <= set(steps.done)


async def test_a_pod_that_does_not_come_to_its_end(node: Node, steps: Steps) -> None:
    node.settings = Settings(deadlines=DeadlineSettings(create=0.3))
    steps.hold("network.setup")
    with pytest.raises(OperationTimeout, match=r"run pod sandbox n/pod: no end after 0\.3 s"):
        await run_pod_sandbox(node, run_request())
    assert "network.teardown" in steps.done
    assert not node.state.sandboxes


async def test_a_caller_that_goes_away_leaves_its_pod_to_the_retry(node: Node, steps: Steps) -> None:
    gate = steps.hold("network.setup")
    first = asyncio.create_task(run_pod_sandbox(node, run_request()))
    await steps.begun["network.setup"].wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    retry = asyncio.create_task(run_pod_sandbox(node, run_request()))
    other = run_request()
    other.config.hostname = "another"
    differing = asyncio.create_task(run_pod_sandbox(node, other))
    await asyncio.sleep(0)
    gate.set()
    identity = (await retry).pod_sandbox_id
    assert list(node.state.sandboxes) == [identity]
    assert steps.done.count("network.setup") == 1
    with pytest.raises(NameInUse, match="configured otherwise"):
        await differing
    assert (await run_pod_sandbox(node, run_request())).pod_sandbox_id == identity


async def test_a_resize_does_not_bring_a_stopped_pod_back(node: Node, steps: Steps) -> None:
    await a_pod(node)
    gate = steps.hold("cgroups.update_pod")
    request = cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=POD)
    request.resources.cpu_shares = 7
    resize = asyncio.create_task(update_pod_sandbox_resources(node, request))
    await steps.begun["cgroups.update_pod"].wait()
    stop = asyncio.create_task(stop_pod_sandbox(node, cri.StopPodSandboxRequest(pod_sandbox_id=POD)))
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(resize, stop)
    record = node.state.sandboxes[POD]
    assert record.phase is SandboxPhase.NOT_READY
    assert record.resources is not None
    assert record.resources.cpu_shares == 7
    assert await stored(node) == ({POD: "notready"}, {})
    with pytest.raises(SandboxNotReady):
        await update_pod_sandbox_resources(node, request)


async def test_many_resizes_are_all_kept(node: Node) -> None:
    await a_pod(node, owns_cgroup=False)
    requests = []
    for name in ("cpu_shares", "cpu_quota", "memory_limit_in_bytes"):
        request = cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=POD)
        setattr(request.resources, name, 10_000_000)
        requests.append(request)
    await asyncio.gather(*(update_pod_sandbox_resources(node, request) for request in requests))
    resources = node.state.sandboxes[POD].resources
    assert resources is not None
    assert (resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes) == (10_000_000,) * 3


async def test_a_create_in_a_pod_that_stops_is_called_off(node: Node, steps: Steps) -> None:
    await a_pod(node)
    steps.hold("images.prepare")
    creates = [asyncio.create_task(create_container(node, create_request())) for _ in range(2)]
    await steps.begun["images.prepare"].wait()
    await stop_pod_sandbox(node, cri.StopPodSandboxRequest(pod_sandbox_id=POD))
    for create in creates:
        with pytest.raises(SandboxNotReady):
            await create
    assert steps.done.count("images.prepare") == 1
    assert steps.done.count("images.remove") == 1
    assert not node.state.containers
    with pytest.raises(SandboxNotReady):
        await create_container(node, create_request())


async def test_a_pod_that_is_removed_leaves_no_container_behind(node: Node, steps: Steps) -> None:
    await a_pod(node)
    gate = steps.hold("images.remove")
    steps.hold("images.prepare")
    create = asyncio.create_task(create_container(node, create_request()))
    await steps.begun["images.prepare"].wait()
    remove = asyncio.create_task(remove_pod_sandbox(node, cri.RemovePodSandboxRequest(pod_sandbox_id=POD)))
    await steps.begun["images.remove"].wait()
    await asyncio.sleep(0.01)
    assert not remove.done()  # it waits for the create to be undone
    gate.set()
    await remove
    with pytest.raises(SandboxNotReady):
        await create
    assert await stored(node) == ({}, {})
    assert not node.state.sandboxes
    assert not node.state.containers
    assert node.state.containers_of(POD) == []


async def test_a_stop_meets_a_removal(node: Node, steps: Steps) -> None:
    await a_pod(node)
    gate = steps.hold("cgroups.remove_pod")
    remove = asyncio.create_task(remove_pod_sandbox(node, cri.RemovePodSandboxRequest(pod_sandbox_id=POD)))
    await steps.begun["cgroups.remove_pod"].wait()
    stops = [
        asyncio.create_task(stop_pod_sandbox(node, cri.StopPodSandboxRequest(pod_sandbox_id=POD)))
        for _ in range(3)
    ]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(remove, *stops)
    assert not node.state.sandboxes
    assert await stored(node) == ({}, {})


async def test_a_network_that_is_not_given_back_keeps_its_namespace(node: Node, steps: Steps) -> None:
    await a_pod(node)
    steps.errors["network.teardown"] = Internal("no DEL")
    for _ in range(2):
        with pytest.raises(Internal, match="^no DEL$"):
            await stop_pod_sandbox(node, cri.StopPodSandboxRequest(pod_sandbox_id=POD))
    assert node.state.sandboxes[POD].phase is SandboxPhase.NOT_READY
    assert node.state.sandboxes[POD].network_ready
    assert "namespaces.destroy" not in steps.done
    assert {"files.destroy", "cgroups.remove_pod"} <= set(steps.done)
    del steps.errors["network.teardown"]
    await stop_pod_sandbox(node, cri.StopPodSandboxRequest(pod_sandbox_id=POD))
    assert not node.state.sandboxes[POD].namespaces
    assert steps.done[-4:-1] == ["network.teardown", "namespaces.destroy", "files.destroy"]


async def test_an_end_is_told_once_though_the_first_stop_fails(node: Node, steps: Steps) -> None:
    await a_pod(node)
    steps.errors["network.teardown"] = Internal("no DEL")
    request = cri.StopPodSandboxRequest(pod_sandbox_id=POD)
    with node.events.subscribe() as events:
        with pytest.raises(Internal, match="no DEL"):
            await stop_pod_sandbox(node, request)
        told = await asyncio.wait_for(anext(events), 60)
        assert (told.container_id, told.container_event_type) == (POD, cri.CONTAINER_STOPPED_EVENT)
        assert told.pod_sandbox_status.state == cri.SANDBOX_NOTREADY
        steps.errors.clear()
        await stop_pod_sandbox(node, request)
        node.events.close()
        assert [event async for event in events] == []


async def test_a_pod_whose_init_ends_is_not_ready_and_told_once(node: Node) -> None:
    await a_pod(node)
    with node.events.subscribe() as events:
        for _ in range(2):
            on_init_end(node, POD)
            await node.flights.settled_below("lose ")
        assert await stored(node) == ({POD: "notready"}, {})
        assert node.state.sandboxes[POD].network_ready
        with pytest.raises(SandboxNotReady):
            await create_container(node, create_request())
        await stop_pod_sandbox(node, cri.StopPodSandboxRequest(pod_sandbox_id=POD))
        on_init_end(node, POD)
        assert not len(node.flights)
        node.events.close()
        assert [event.container_event_type async for event in events] == [cri.CONTAINER_STOPPED_EVENT]


async def test_an_init_that_ends_before_its_pod_is_ready(node: Node, steps: Steps) -> None:
    gate = steps.hold("network.setup")
    run = asyncio.create_task(run_pod_sandbox(node, run_request()))
    await steps.begun["network.setup"].wait()
    (sandbox_id,) = node.state.sandboxes
    on_init_end(node, sandbox_id)
    gate.set()
    assert (await run).pod_sandbox_id == sandbox_id
    await node.flights.settled_below("lose ")
    assert node.state.sandboxes[sandbox_id].phase is SandboxPhase.NOT_READY


@pytest.fixture
def restore_request(node: Node, steps: Steps, tmp_path: Path) -> cri.RestorePodRequest:
    """Of a checkpoint without containers."""
    write_manifest(tmp_path, PodManifest(VERSION, "pod", "n", "u", "", 1, ()))
    node.criu = cast(Any, SimpleNamespace(require=lambda _: steps("criu")))
    return cri.RestorePodRequest(checkpoint_path=str(tmp_path), config=pod_config())


async def test_a_restore_asked_for_again_while_it_ends_is_not_done_twice(
    node: Node, steps: Steps, restore_request: cri.RestorePodRequest
) -> None:
    gate = steps.hold("network.setup")
    first = asyncio.create_task(restore_pod(node, restore_request))
    await steps.begun["network.setup"].wait()
    criu = steps.hold("criu")
    again = asyncio.create_task(restore_pod(node, restore_request))
    differing = cri.RestorePodRequest()
    differing.CopyFrom(restore_request)
    differing.checkpoint_path = "/another"
    other = asyncio.create_task(restore_pod(node, differing))
    await asyncio.sleep(0)
    gate.set()
    answer = await first
    criu.set()
    assert await again == answer
    with pytest.raises(NameInUse):
        await other
    assert steps.done.count("criu") == 1


async def test_a_restore_takes_no_pod_that_somebody_else_ran_meanwhile(
    node: Node, steps: Steps, restore_request: cri.RestorePodRequest
) -> None:
    gate = steps.hold("criu")
    restore = asyncio.create_task(restore_pod(node, restore_request))
    await steps.begun["criu"].wait()
    pod = await run_pod_sandbox(node, run_request())
    gate.set()
    with pytest.raises(NameInUse):
        await restore
    assert node.state.sandboxes[pod.pod_sandbox_id].phase is SandboxPhase.READY


async def test_a_removal_that_fails_is_shown_and_repeated(node: Node, steps: Steps) -> None:
    await a_pod(node)
    await a_container(node)
    steps.errors["images.remove"] = Internal("no image daemon")
    request = cri.RemoveContainerRequest(container_id=APP)
    with pytest.raises(Internal, match="no image daemon"):
        await remove_container(node, request)
    assert [c.id for c in node.state.visible_containers()] == [APP]
    with pytest.raises(WrongContainerState):
        await start_container(node, cri.StartContainerRequest(container_id=APP))
    pod = cri.RemovePodSandboxRequest(pod_sandbox_id=POD)
    with pytest.raises(Internal, match="no image daemon"):
        await remove_pod_sandbox(node, pod)
    assert [s.id for s in node.state.visible_sandboxes()] == [POD]
    steps.errors.clear()
    await remove_container(node, request)
    await remove_container(node, request)
    await remove_pod_sandbox(node, pod)
    assert not node.state.sandboxes
    assert not node.container_statuses._entries


async def test_a_stop_during_a_start_comes_after_it(node: Node, steps: Steps) -> None:
    await a_pod(node)
    await a_container(node)
    gate = steps.hold("conmon.create")
    exits = cast(Any, node.exits)

    def ended(container_id: str, number: int) -> None:
        on_exit(node, Exit(container_id, 128 + number, 5))

    exits.on_signal = ended
    start = asyncio.create_task(start_container(node, cri.StartContainerRequest(container_id=APP)))
    await asyncio.sleep(0)  # the start has begun, and is written nowhere yet
    stop = asyncio.create_task(stop_container(node, cri.StopContainerRequest(container_id=APP, timeout=-1)))
    await steps.begun["conmon.create"].wait()
    await asyncio.sleep(0.01)
    assert not stop.done()
    gate.set()
    await start
    await stop
    record = node.state.containers[APP]
    assert (record.phase, record.exit_code) == (ContainerPhase.EXITED, 137)
    assert steps.done.count("signal 9") == 1
    assert not node.graces


async def test_the_grace_of_a_stop_counts_from_its_signal(node: Node, steps: Steps) -> None:
    await a_pod(node)
    await a_container(node, ContainerPhase.RUNNING)
    exits = cast(Any, node.exits)
    told = asyncio.Event()

    def ended(container_id: str, number: int) -> None:
        told.set()
        if number == 9:
            on_exit(node, Exit(container_id, 137, 5))

    exits.on_signal = ended

    def stop(seconds: int) -> asyncio.Task[Any]:
        request = cri.StopContainerRequest(container_id=APP, timeout=seconds)
        return asyncio.create_task(stop_container(node, request))

    async with node.locks.hold(APP):  # as a checkpoint does
        stops = [stop(1), stop(100)]
        await asyncio.sleep(1.05)
    await told.wait()
    stops.append(stop(0))  # shortens it
    await asyncio.gather(*stops)
    assert [s for s in steps.done if s.startswith("signal")] == ["signal 15", "signal 9"]
    assert not node.graces


async def test_the_last_one_is_the_newest_though_the_clock_was_set_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet goes by the time of creation, and would replace what runs for an older one."""
    await a_pod(node, phase=SandboxPhase.NOT_READY, created_at=1_000)
    monkeypatch.setattr(clock, "now", lambda: 500)
    request = run_request()
    request.config.metadata.attempt = 1
    made = node.state.sandboxes[(await run_pod_sandbox(node, request)).pod_sandbox_id]
    assert made.created_at == 1_001
    other = run_request()
    other.config.metadata.uid = "another"
    unrelated = node.state.sandboxes[(await run_pod_sandbox(node, other)).pod_sandbox_id]
    assert unrelated.created_at == 500


async def test_the_last_container_is_the_newest_though_the_clock_was_set_back(
    node: Node, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_pod(node)
    ended = await a_container(node, ContainerPhase.EXITED)
    await node.state.save(msgspec.structs.replace(ended, created_at=1_000))
    monkeypatch.setattr(clock, "now", lambda: 500)
    go_on = steps.hold("images.prepare")
    request = create_request()
    request.config.metadata.attempt = 1
    create = asyncio.create_task(create_container(node, request))
    await steps.begun["images.prepare"].wait()
    assert [c.created_at for c in node.state.containers_of(POD)] == [1_000, 1_001]
    go_on.set()
    with pytest.raises(Internal):
        await create


@pytest.mark.parametrize("turns", range(8))
async def test_a_shorter_grace_is_heard_at_any_moment(node: Node, turns: int) -> None:
    """Also one that comes when the first stop is about to wait."""
    await a_pod(node)
    await a_container(node, ContainerPhase.RUNNING)

    def ended(container_id: str, number: int) -> None:
        if number == 9:
            on_exit(node, Exit(container_id, 137, 5))

    cast(Any, node.exits).on_signal = ended
    async with asyncio.timeout(30):
        first = asyncio.create_task(
            stop_container(node, cri.StopContainerRequest(container_id=APP, timeout=600))
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        await stop_container(node, cri.StopContainerRequest(container_id=APP))
        await first


async def test_a_start_that_does_not_come_to_its_end(node: Node, steps: Steps) -> None:
    await a_pod(node)
    await a_container(node)
    node.settings = Settings(deadlines=DeadlineSettings(create=0.3))
    steps.hold("conmon.create")
    starts = [start_container(node, cri.StartContainerRequest(container_id=APP)) for _ in range(2)]
    outcomes = await asyncio.gather(*starts, return_exceptions=True)
    assert [type(o) for o in outcomes] == [OperationTimeout] * 2
    record = node.state.containers[APP]
    assert (record.phase, record.reason, record.exit_code) == (ContainerPhase.EXITED, "StartError", 128)
    assert "no end after 0.3 s" in record.message
    assert "runtime.delete" in steps.done
    assert steps.done.count("conmon.create") == 1


async def test_a_start_that_fails_is_undone_step_by_step(node: Node, steps: Steps) -> None:
    await a_pod(node)
    await a_container(node)
    steps.errors["runtime.start"] = RuntimeFailed("crun start: no such file")
    steps.errors["runtime.delete"] = RuntimeFailed("crun delete: busy")
    with pytest.raises(RuntimeFailed, match="no such file"):
        await start_container(node, cri.StartContainerRequest(container_id=APP))
    assert steps.done[-2:] == ["runtime.delete", "cgroup.remove"]
    assert node.state.containers[APP].message == "crun start: no such file"


async def test_a_start_cut_off_by_a_shutdown_is_undone_by_the_next_daemon(node: Node, steps: Steps) -> None:
    await a_pod(node)
    await a_container(node)
    steps.hold("conmon.create")
    start = asyncio.create_task(start_container(node, cri.StartContainerRequest(container_id=APP)))
    await steps.begun["conmon.create"].wait()
    await node.flights.drain(0.01, 5)
    with pytest.raises(CalledOff):
        await start
    assert (await stored(node))[1] == {APP: "starting"}
    node.flights = type(node.flights)()
    await recovery.reconcile(node, rebooted=False)
    assert node.state.containers[APP].phase is ContainerPhase.CREATED
    assert "runtime.delete" in steps.done
    assert (await stored(node))[1] == {APP: "created"}


async def test_what_a_start_finishes_and_finds_is_told_to_who_listens_already(node: Node) -> None:
    """A client may have come before: the records are shown while they are held against the kernel."""
    await a_pod(node, namespaces={"net": "/x/net", "ipc": "/x/ipc"})  # of which one is pinned
    await a_container(node, ContainerPhase.REMOVING)
    removing, making = "8" * 64, "9" * 64
    await a_pod(node, id=removing, phase=SandboxPhase.REMOVING)
    await a_pod(node, id=making, phase=SandboxPhase.CREATING)
    node.sandbox_statuses.get(removing, node.state.sandboxes[removing])
    with node.events.subscribe() as events:
        await recovery.reconcile(node, rebooted=False)
        node.events.close()
        told = [(event.container_id, event.container_event_type) async for event in events]
    assert told[0] == (POD, cri.CONTAINER_STOPPED_EVENT)
    assert sorted(told[1:]) == sorted((gone, cri.CONTAINER_DELETED_EVENT) for gone in (APP, removing))
    assert await stored(node) == ({POD: "notready"}, {})
    assert removing not in node.sandbox_statuses._entries


async def test_what_hangs_does_not_keep_the_daemon_from_getting_ready(
    node: Node, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("triptych_runtime.recovery.reconcile")
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    await a_pod(node, phase=SandboxPhase.NOT_READY)
    await a_pod(node, id="c" * 64, phase=SandboxPhase.CREATING, config=pod_config("half"))
    await a_container(node, ContainerPhase.STARTING)
    network, runtime = steps.hold("network.teardown"), steps.hold("runtime.delete")
    async with asyncio.timeout(30 * PATIENCE):
        await recovery.reconcile(node, rebooted=False)
    # Work on what hangs waits for it; the rest goes on.
    stop = asyncio.create_task(stop_pod_sandbox(node, cri.StopPodSandboxRequest(pod_sandbox_id=POD)))
    remove = asyncio.create_task(remove_container(node, cri.RemoveContainerRequest(container_id=APP)))
    await asyncio.sleep(0.01)
    assert not stop.done()
    assert not remove.done()
    network.set()
    runtime.set()
    await asyncio.gather(stop, remove)
    await node.flights.drain(5, 5)
    assert list(node.state.sandboxes) == [POD]
    assert not node.state.containers


async def test_a_half_made_pod_goes_though_its_network_is_not_given_back(node: Node, steps: Steps) -> None:
    await a_pod(node, phase=SandboxPhase.CREATING)
    steps.errors["network.teardown"] = Internal("no DEL")
    await recovery.reconcile(node, rebooted=False)
    await node.flights.drain(5, 5)
    assert {"namespaces.destroy", "files.destroy", "cgroups.remove_pod"} <= set(steps.done)
    assert await stored(node) == ({}, {})


@contextlib.contextmanager
def full_disk(node: Node) -> Iterator[None]:
    """No record can be written meanwhile."""

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node.database, "_execute", full)
        patch.setattr(node.database, "_pay", full)
        yield


async def test_an_exit_that_cannot_be_written_down_is_told_and_its_file_kept(node: Node) -> None:
    await a_pod(node)
    record = await a_container(node, ContainerPhase.RUNNING)
    waiting = asyncio.create_task(node.exit_waits.wait(APP, 5))
    await asyncio.sleep(0)
    removed: list[str] = []
    cast(Any, node.exits).remove_file = removed.append
    with full_disk(node):
        await handle_exit(node, Exit(APP, 3, 9))
        assert (await waiting).exit_code == 3
        await node.flights.settled(f"release {APP}")
    ended = msgspec.structs.replace(
        record, phase=ContainerPhase.EXITED, exit_code=3, reason="Error", finished_at=9
    )
    assert node.state.containers[APP] == ended
    assert removed == []
    assert await stored(node) == ({POD: "ready"}, {APP: "running"})
    await a_pod(node, id="9" * 64)
    assert (await stored(node))[1] == {APP: "exited"}
    await remove_container(node, cri.RemoveContainerRequest(container_id=APP))
    assert set(removed) == {APP}


async def test_a_full_disk_keeps_no_pod_from_its_end(node: Node, steps: Steps) -> None:
    await a_pod(node)
    await a_container(node)
    with full_disk(node):
        await stop_pod_sandbox(node, cri.StopPodSandboxRequest(pod_sandbox_id=POD))
        assert node.state.sandboxes[POD].phase is SandboxPhase.NOT_READY
        assert "network.teardown" in steps.done
        await remove_container(node, cri.RemoveContainerRequest(container_id=APP))
        assert "images.remove" in steps.done
        await remove_pod_sandbox(node, cri.RemovePodSandboxRequest(pod_sandbox_id=POD))
        assert not node.state.sandboxes
        with pytest.raises(StoreFailed):
            await run_pod_sandbox(node, run_request())
        assert not node.state.sandboxes
        assert await stored(node) == ({POD: "ready"}, {APP: "created"})
    made = (await run_pod_sandbox(node, run_request())).pod_sandbox_id
    assert await stored(node) == ({made: "ready"}, {})


async def test_a_start_that_cannot_be_written_down_fails(node: Node, steps: Steps) -> None:
    """A daemon that died after it would find a start that was cut off, and end the container."""
    await a_pod(node)
    await a_container(node)
    go_on = steps.hold("runtime.start")
    starting = asyncio.create_task(start_container(node, cri.StartContainerRequest(container_id=APP)))
    await steps.begun["runtime.start"].wait()
    with full_disk(node):
        go_on.set()
        with pytest.raises(StoreFailed):
            await starting
    assert node.state.containers[APP].reason == "StartError"
    assert "runtime.delete" in steps.done


@pytest.mark.parametrize("rebooted", [False, True])
async def test_a_full_disk_does_not_keep_the_daemon_from_getting_ready(node: Node, rebooted: bool) -> None:
    await a_pod(node, namespaces={"net": "/x/net", "ipc": "/x/ipc"})  # of which one is pinned
    with full_disk(node):
        await recovery.reconcile(node, rebooted=rebooted)
        assert node.state.sandboxes[POD].phase is SandboxPhase.NOT_READY
        assert await stored(node) == ({POD: "ready"}, {})


async def test_execs_work_while_a_probe_of_their_handler_has_failed(node: Node, tmp_path: Path) -> None:
    await a_pod(node)
    await a_container(node, ContainerPhase.RUNNING)
    runtime = FakeRuntime("crun", "/bin/true", tmp_path / "oci")
    node.handlers = Handlers({"crun": Handler("crun", runtime, problem="it took too long")}, "crun")
    node.processes[APP] = {"args": ["sleep"], "cwd": "/", "env": []}
    node.paths.exec.mkdir(parents=True)

    class Streaming:
        async def open_exec(self, call: Any, _: float) -> str:
            return f"by {call.runtime_command[0]}"

    node.streaming = cast(Any, Streaming())
    answer = await exec_(node, cri.ExecRequest(container_id=APP, cmd=["x"], stdout=True), 10)
    assert answer.url == "by /bin/true"
    assert (await exec_sync(node, cri.ExecSyncRequest(container_id=APP, cmd=["x"]))).exit_code == 0
    with pytest.raises(HandlerUnusable):
        await create_container(node, create_request())


@pytest.mark.parametrize("ends", [True, False])
async def test_a_log_is_reopened_whose_monitor_is_gone(node: Node, tmp_path: Path, ends: bool) -> None:
    """The monitor goes a moment before the end of its container is known here; or it was killed."""
    await a_pod(node)
    record = await a_container(node, ContainerPhase.RUNNING)
    await node.state.save(msgspec.structs.replace(record, log_path=str(tmp_path / "0.log")))
    control = node.paths.monitor(APP).control
    control.parent.mkdir(parents=True)
    os.mkfifo(control)
    request = cri.ReopenContainerLogRequest(container_id=APP)
    reopening = asyncio.create_task(reopen_container_log(node, request))
    while not (tmp_path / "0.log.tmp").exists():
        await asyncio.sleep(0.001)
    if ends:
        on_exit(node, Exit(APP, 0, 5))
    with pytest.raises(ContainerNotRunning if ends else RuntimeFailed):
        await reopening
    assert not (tmp_path / "0.log.tmp").exists()
