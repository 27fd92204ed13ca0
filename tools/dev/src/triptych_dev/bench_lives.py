"""Lives of pods for `./dev bench pods`: every peer gets the same requests over its own CRI socket."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from runtime.v1 import api_pb2, api_pb2_grpc

from triptych_dev import bench_groups
from triptych_dev.bench_memory import Memory
from triptych_dev.errors import StepFailed

_DEADLINE = 120.0
_STATUS_CALLS = 5

#: operation -> how many at a time -> milliseconds, in the order of the lives
Timings = dict[str, dict[int, list[float]]]


@dataclass(slots=True)
class Peer:
    """A CRI runtime that is measured.

    :param image: reference of its containers' image, pulled.
    :param logs: directory of its pods' logs.
    :param daemon: what the daemon is; peers that differ in the OCI runtime only have the same.
    :param memory: what it costs the node now, by part; the part "all" is the whole.
    """

    name: str
    socket: str
    image: str
    logs: Path
    daemon: str
    memory: Callable[[], Mapping[str, Memory]]
    timings: Timings = field(default_factory=dict)

    def note(self, operation: str, parallel: int, milliseconds: Sequence[float]) -> None:
        """Keep timings."""
        self.timings.setdefault(operation, {}).setdefault(parallel, []).extend(milliseconds)

    @contextlib.contextmanager
    def connect(self) -> Iterator[api_pb2_grpc.RuntimeServiceStub]:
        """One connection for all calls, as the kubelet has."""
        options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{self.socket}", options=options) as channel:
            yield api_pb2_grpc.RuntimeServiceStub(channel)


@dataclass(slots=True)
class Life:
    """A pod with one container, as the kubelet makes them: own network, IPC and PID namespaces, logs."""

    stub: api_pb2_grpc.RuntimeServiceStub
    peer: Peer
    name: str
    sandbox: str = ""
    container: str = ""
    config: api_pb2.PodSandboxConfig = field(default_factory=api_pb2.PodSandboxConfig)

    def __post_init__(self) -> None:
        self.config = api_pb2.PodSandboxConfig(hostname=self.name[-60:])
        meta = self.config.metadata
        meta.name, meta.uid, meta.namespace = self.name, f"{self.name}-uid", "bench"
        self.config.linux.cgroup_parent = bench_groups.parent(self.name)
        logs = self.peer.logs / self.name
        (logs / "main").mkdir(parents=True, exist_ok=True)
        self.config.log_directory = str(logs)
        options = self.config.linux.security_context.namespace_options
        options.pid, options.network, options.ipc = api_pb2.CONTAINER, api_pb2.POD, api_pb2.POD

    def container_config(self, name: str = "main") -> api_pb2.ContainerConfig:
        """A container that waits to be told to stop, stops at once then, and says when it is so far."""
        script = "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done"
        config = api_pb2.ContainerConfig(command=["/bin/sh", "-c", script])
        config.metadata.name = name
        config.image.image = self.peer.image
        config.log_path = f"{name}/0.log"
        config.linux.resources.cpu_shares = 2
        config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
        return config

    def run(self) -> None:
        request = api_pb2.RunPodSandboxRequest(config=self.config)
        self.sandbox = self.stub.RunPodSandbox(request, timeout=_DEADLINE).pod_sandbox_id

    def create(self, name: str = "main") -> str:
        request = api_pb2.CreateContainerRequest(
            pod_sandbox_id=self.sandbox, config=self.container_config(name), sandbox_config=self.config
        )
        self.container = self.stub.CreateContainer(request, timeout=_DEADLINE).container_id
        return self.container

    def start(self) -> None:
        request = api_pb2.StartContainerRequest(container_id=self.container)
        self.stub.StartContainer(request, timeout=_DEADLINE)

    def await_ready(self) -> None:
        """Wait for its word in the log: a stop signal before that would be lost on it."""
        log = Path(self.config.log_directory, "main/0.log")
        deadline = time.monotonic() + _DEADLINE
        while not log.exists() or not log.stat().st_size:
            if time.monotonic() > deadline:
                raise StepFailed(f"{self.peer.name}: container {self.container} wrote nothing to {log}")
            time.sleep(0.002)

    def exec(self) -> None:
        request = api_pb2.ExecSyncRequest(container_id=self.container, cmd=["true"], timeout=60)
        answer = self.stub.ExecSync(request, timeout=_DEADLINE)
        assert answer.exit_code == 0, answer

    def container_status(self) -> None:
        request = api_pb2.ContainerStatusRequest(container_id=self.container)
        self.stub.ContainerStatus(request, timeout=_DEADLINE)

    def sandbox_status(self) -> None:
        request = api_pb2.PodSandboxStatusRequest(pod_sandbox_id=self.sandbox)
        self.stub.PodSandboxStatus(request, timeout=_DEADLINE)

    def stop(self) -> None:
        request = api_pb2.StopContainerRequest(container_id=self.container, timeout=60)
        self.stub.StopContainer(request, timeout=_DEADLINE)

    def remove(self) -> None:
        request = api_pb2.RemoveContainerRequest(container_id=self.container)
        self.stub.RemoveContainer(request, timeout=_DEADLINE)

    def stop_sandbox(self) -> None:
        request = api_pb2.StopPodSandboxRequest(pod_sandbox_id=self.sandbox)
        self.stub.StopPodSandbox(request, timeout=_DEADLINE)

    def remove_sandbox(self) -> None:
        request = api_pb2.RemovePodSandboxRequest(pod_sandbox_id=self.sandbox)
        self.stub.RemovePodSandbox(request, timeout=_DEADLINE)

    def end(self) -> None:
        """Remove what there is, whatever state it is in."""
        if self.sandbox:
            self.stop_sandbox()
            self.remove_sandbox()
            self.sandbox = ""


STEPS: Mapping[str, Callable[[Life], object]] = {
    "RunPodSandbox": Life.run,
    "CreateContainer": Life.create,
    "StartContainer": Life.start,
    "ExecSync": Life.exec,
    "ContainerStatus": Life.container_status,
    "PodSandboxStatus": Life.sandbox_status,
    "StopContainer": Life.stop,
    "RemoveContainer": Life.remove,
    "StopPodSandbox": Life.stop_sandbox,
    "RemovePodSandbox": Life.remove_sandbox,
}
"""A life, in order."""

SUMS: Mapping[str, Sequence[str]] = {
    "Create + Start container": ("CreateContainer", "StartContainer"),
    "Stop + Remove container": ("StopContainer", "RemoveContainer"),
    "all of a start": ("RunPodSandbox", "CreateContainer", "StartContainer"),
    "all of an end": (
        "StopContainer",
        "RemoveContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ),
}
"""What belongs together, because runtimes divide the work differently: sums within each life."""


def lives(peer: Peer, parallel: int, tag: str) -> None:
    """`parallel` lives side by side: each step is taken by all at the same time, and timed for each."""
    with peer.connect() as stub, ThreadPoolExecutor(parallel) as pool:
        stub.Version(api_pb2.VersionRequest(), timeout=_DEADLINE)  # the connection is there
        batch = [Life(stub, peer, f"{tag}-{index}") for index in range(parallel)]
        taken: dict[str, list[float]] = {}
        try:
            for name, step in STEPS.items():
                taken[name] = list(pool.map(_timed(step, name), batch))
                if step is Life.start:
                    list(pool.map(Life.await_ready, batch))
        except BaseException:
            for life in batch:
                with contextlib.suppress(grpc.RpcError):
                    life.end()
            raise
    for name, spent in taken.items():
        peer.note(name, parallel, spent)
    for name, parts in SUMS.items():
        peer.note(name, parallel, [sum(taken[part][index] for part in parts) for index in range(parallel)])


def _timed(step: Callable[[Life], object], name: str) -> Callable[[Life], float]:
    calls = _STATUS_CALLS if name.endswith("Status") else 1

    def take(life: Life) -> float:
        begun = time.perf_counter()
        for _ in range(calls):
            step(life)
        return (time.perf_counter() - begun) * 1000 / calls

    return take


class Held:
    """Pods with one container each that stay for a while: for lists, stats and memory."""

    def __init__(self, peer: Peer, count: int, tag: str) -> None:
        self._peer, self._count, self._tag = peer, count, tag
        self._lives: list[Life] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Held:
        self._stub = self._stack.enter_context(self._peer.connect())
        self._pool = self._stack.enter_context(ThreadPoolExecutor(4))
        self._lives = [Life(self._stub, self._peer, f"{self._tag}-{i}") for i in range(self._count)]
        try:
            list(self._pool.map(_bring_up, self._lives))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            list(self._pool.map(Life.end, self._lives))
        finally:
            self._stack.close()

    def fill(self, count: int) -> None:
        """More containers that are created and never started, spread over the pods."""
        work = [(self._lives[i % len(self._lives)], f"filler-{i}") for i in range(count)]
        list(self._pool.map(lambda item: _filler(*item), work))

    def time(self, label: str, name: str, request: Any) -> None:
        """Call an RPC; one that the peer does not have is left out."""
        begun = time.perf_counter()
        try:
            getattr(self._stub, name)(request, timeout=_DEADLINE)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return
            raise
        self._peer.note(label, 1, [(time.perf_counter() - begun) * 1000])

    def first(self) -> Life:
        return self._lives[0]


def _bring_up(life: Life) -> None:
    life.run()
    life.create()
    life.start()


def _filler(life: Life, name: str) -> None:
    request = api_pb2.CreateContainerRequest(
        pod_sandbox_id=life.sandbox, config=life.container_config(name), sandbox_config=life.config
    )
    life.stub.CreateContainer(request, timeout=_DEADLINE)


def lists(
    peers: Sequence[Peer], pods: int, containers: int, rounds: int
) -> Mapping[str, Mapping[str, Memory]]:
    """Stats, lists and statuses with `pods` running at each peer and `containers` in all, turn by turn.

    :returns: what each peer costs the node with `pods` running.
    """
    with contextlib.ExitStack() as stack:
        helds = {peer.name: stack.enter_context(Held(peer, pods, "held")) for peer in peers}
        time.sleep(1)
        memory = {peer.name: peer.memory() for peer in peers}
        _in_turns(helds.values(), rounds, lambda held: _time_running(held, pods))
        for held in helds.values():
            held.fill(max(containers - pods, 0))
        _in_turns(helds.values(), rounds, lambda held: _time_lists(held, containers))
    return memory


def _in_turns(helds: Iterable[Held], rounds: int, measure: Callable[[Held], None]) -> None:
    for _ in range(rounds):
        for held in helds:
            measure(held)


def _time_running(held: Held, pods: int) -> None:
    held.time(f"ListContainerStats of {pods}", "ListContainerStats", api_pb2.ListContainerStatsRequest())
    held.time(f"ListPodSandboxStats of {pods}", "ListPodSandboxStats", api_pb2.ListPodSandboxStatsRequest())
    held.time(f"ListPodSandbox of {pods}", "ListPodSandbox", api_pb2.ListPodSandboxRequest())


def _time_lists(held: Held, containers: int) -> None:
    one = api_pb2.ContainerStatusRequest(container_id=held.first().container)
    held.time(f"ListContainers of {containers}", "ListContainers", api_pb2.ListContainersRequest())
    held.time(f"ContainerStatus among {containers}", "ContainerStatus", one)


def memory_at(peer: Peer, pods: int) -> Mapping[str, Memory]:
    """The memory that a peer takes with `pods` running."""
    with Held(peer, pods, "many"):
        time.sleep(1)
        return peer.memory()
