"""Lives of pods for `./dev bench pods`: every peer gets the same requests over its own CRI socket."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from runtime.v1 import api_pb2, api_pb2_grpc

from triptych_dev.benches import groups
from triptych_dev.benches.memory import Memory
from triptych_dev.errors import StepFailed

DEADLINE = 120.0
"""Seconds that one call may take."""

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
        self.config.linux.cgroup_parent = groups.parent(self.name)
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
        self.sandbox = self.stub.RunPodSandbox(request, timeout=DEADLINE).pod_sandbox_id

    def create(self, name: str = "main") -> str:
        request = api_pb2.CreateContainerRequest(
            pod_sandbox_id=self.sandbox, config=self.container_config(name), sandbox_config=self.config
        )
        self.container = self.stub.CreateContainer(request, timeout=DEADLINE).container_id
        return self.container

    def start(self) -> None:
        request = api_pb2.StartContainerRequest(container_id=self.container)
        self.stub.StartContainer(request, timeout=DEADLINE)

    def await_ready(self) -> None:
        """Wait for its word in the log: a stop signal before that would be lost on it."""
        log = Path(self.config.log_directory, "main/0.log")
        deadline = time.monotonic() + DEADLINE
        while not log.exists() or not log.stat().st_size:
            if time.monotonic() > deadline:
                raise StepFailed(f"{self.peer.name}: container {self.container} wrote nothing to {log}")
            time.sleep(0.002)

    def exec(self) -> None:
        request = api_pb2.ExecSyncRequest(container_id=self.container, cmd=["true"], timeout=60)
        answer = self.stub.ExecSync(request, timeout=DEADLINE)
        assert answer.exit_code == 0, answer

    def container_status(self) -> None:
        request = api_pb2.ContainerStatusRequest(container_id=self.container)
        self.stub.ContainerStatus(request, timeout=DEADLINE)

    def sandbox_status(self) -> None:
        request = api_pb2.PodSandboxStatusRequest(pod_sandbox_id=self.sandbox)
        self.stub.PodSandboxStatus(request, timeout=DEADLINE)

    def stop(self) -> None:
        request = api_pb2.StopContainerRequest(container_id=self.container, timeout=60)
        self.stub.StopContainer(request, timeout=DEADLINE)

    def remove(self) -> None:
        request = api_pb2.RemoveContainerRequest(container_id=self.container)
        self.stub.RemoveContainer(request, timeout=DEADLINE)

    def stop_sandbox(self) -> None:
        request = api_pb2.StopPodSandboxRequest(pod_sandbox_id=self.sandbox)
        self.stub.StopPodSandbox(request, timeout=DEADLINE)

    def remove_sandbox(self) -> None:
        request = api_pb2.RemovePodSandboxRequest(pod_sandbox_id=self.sandbox)
        self.stub.RemovePodSandbox(request, timeout=DEADLINE)

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
        stub.Version(api_pb2.VersionRequest(), timeout=DEADLINE)  # the connection is there
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
