"""`./dev bench pods`: the life cycle of pods and containers against containerd, in one run on one machine.

Every peer gets the same requests over its own CRI socket, the peers taking turns round by round, so that
noise of the machine falls on all alike. The floor is what cannot be avoided: the CNI plugins, conmon and
the OCI runtime run by hand.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from runtime.v1 import api_pb2, api_pb2_grpc

LIFE_CYCLE = (
    "RunPodSandbox",
    "CreateContainer",
    "StartContainer",
    "ExecSync",
    "ContainerStatus",
    "PodSandboxStatus",
    "StopContainer",
    "RemoveContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
)
_DEADLINE = 120.0


@dataclass(slots=True)
class Peer:
    """A CRI runtime that is measured.

    :param handler: runtime handler of its pods, "" for its default.
    :param memory: its whole memory on the node in bytes (PSS of daemons, monitors, shims, pause processes).
    """

    name: str
    runtime_socket: str
    image_socket: str
    memory: Callable[[], dict[str, int]]
    image: str
    handler: str = ""
    timings: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def connect(self) -> Client:
        return Client(self)


class Client:
    """One connection to a peer; every call is timed."""

    def __init__(self, peer: Peer) -> None:
        options = [("grpc.max_receive_message_length", 64 << 20)]
        self._channel = grpc.insecure_channel(f"unix:{peer.runtime_socket}", options=options)
        self._peer = peer
        self.stub = api_pb2_grpc.RuntimeServiceStub(self._channel)

    def call(self, name: str, request: Any, parallel: int) -> Any:
        """Call an RPC and note how long it took, in milliseconds, under its name and the concurrency."""
        begun = time.perf_counter()
        answer = getattr(self.stub, name)(request, timeout=_DEADLINE)
        spent = (time.perf_counter() - begun) * 1000
        self._peer.timings.setdefault(name, {}).setdefault(parallel, []).append(spent)
        return answer

    def close(self) -> None:
        self._channel.close()


def pod_config(name: str) -> api_pb2.PodSandboxConfig:
    """A pod as the kubelet asks for it: own network and IPC, no shared PID namespace."""
    config = api_pb2.PodSandboxConfig(hostname=name[:60])
    config.metadata.name, config.metadata.uid, config.metadata.namespace = name, f"{name}-uid", "bench"
    options = config.linux.security_context.namespace_options
    options.pid, options.network, options.ipc = api_pb2.CONTAINER, api_pb2.POD, api_pb2.POD
    return config


def container_config(image: str, name: str = "main") -> api_pb2.ContainerConfig:
    """A container that waits to be stopped, and stops at once when told to."""
    script = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
    config = api_pb2.ContainerConfig(command=["/bin/sh", "-c", script])
    config.metadata.name = name
    config.image.image = image
    config.linux.resources.cpu_shares = 2
    config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
    return config


def one_life(client: Client, peer: Peer, name: str, parallel: int) -> None:
    """A pod with one container from its making to its end, every RPC timed."""
    pod = pod_config(name)
    call = client.call
    request = api_pb2.RunPodSandboxRequest(config=pod, runtime_handler=peer.handler)
    sandbox = call("RunPodSandbox", request, parallel).pod_sandbox_id
    create = api_pb2.CreateContainerRequest(
        pod_sandbox_id=sandbox, config=container_config(peer.image), sandbox_config=pod
    )
    container = call("CreateContainer", create, parallel).container_id
    call("StartContainer", api_pb2.StartContainerRequest(container_id=container), parallel)
    call("ExecSync", api_pb2.ExecSyncRequest(container_id=container, cmd=["true"], timeout=30), parallel)
    call("ContainerStatus", api_pb2.ContainerStatusRequest(container_id=container), parallel)
    call("PodSandboxStatus", api_pb2.PodSandboxStatusRequest(pod_sandbox_id=sandbox), parallel)
    call("StopContainer", api_pb2.StopContainerRequest(container_id=container, timeout=30), parallel)
    call("RemoveContainer", api_pb2.RemoveContainerRequest(container_id=container), parallel)
    call("StopPodSandbox", api_pb2.StopPodSandboxRequest(pod_sandbox_id=sandbox), parallel)
    call("RemovePodSandbox", api_pb2.RemovePodSandboxRequest(pod_sandbox_id=sandbox), parallel)


def lives(peer: Peer, rounds: int, parallel: int, tag: str) -> None:
    """`rounds` lives with `parallel` of them at a time, each over a connection of its own."""
    clients = [peer.connect() for _ in range(parallel)]
    try:
        with ThreadPoolExecutor(parallel) as pool:
            work = [
                pool.submit(one_life, clients[i % parallel], peer, f"{tag}-{i}", parallel)
                for i in range(rounds)
            ]
            for item in work:
                item.result()
    finally:
        for client in clients:
            client.close()


class Held:
    """Pods with one container each that stay for the measurements of lists, stats and memory."""

    def __init__(self, peer: Peer, count: int, tag: str) -> None:
        self._peer = peer
        self._client = peer.connect()
        self._sandboxes: list[str] = []
        for index in range(count):
            self._add(f"{tag}-{index}")

    def _add(self, name: str) -> None:
        pod, stub = pod_config(name), self._client.stub
        run = api_pb2.RunPodSandboxRequest(config=pod, runtime_handler=self._peer.handler)
        sandbox = stub.RunPodSandbox(run, timeout=_DEADLINE).pod_sandbox_id
        self._sandboxes.append(sandbox)
        create = api_pb2.CreateContainerRequest(
            pod_sandbox_id=sandbox, config=container_config(self._peer.image), sandbox_config=pod
        )
        container = stub.CreateContainer(create, timeout=_DEADLINE).container_id
        stub.StartContainer(api_pb2.StartContainerRequest(container_id=container), timeout=_DEADLINE)

    def fill(self, count: int) -> None:
        """More containers that are created and never started, spread over the pods."""
        stub = self._client.stub
        for index in range(count):
            sandbox = self._sandboxes[index % len(self._sandboxes)]
            config = container_config(self._peer.image, f"filler-{index}")
            create = api_pb2.CreateContainerRequest(
                pod_sandbox_id=sandbox, config=config, sandbox_config=pod_config("filler")
            )
            stub.CreateContainer(create, timeout=_DEADLINE)

    def time(self, name: str, request: Any, rounds: int, label: str) -> None:
        for _ in range(rounds):
            begun = time.perf_counter()
            getattr(self._client.stub, name)(request, timeout=_DEADLINE)
            spent = (time.perf_counter() - begun) * 1000
            self._peer.timings.setdefault(label, {}).setdefault(1, []).append(spent)

    def close(self) -> None:
        stub = self._client.stub
        for sandbox in self._sandboxes:
            stub.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=sandbox), timeout=_DEADLINE)
            stub.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=sandbox), timeout=_DEADLINE)
        self._client.close()


def lists_and_memory(peer: Peer, pods: int, containers: int, rounds: int) -> dict[str, int]:
    """Lists and stats with `pods` running, lists with `containers` in all; returns the memory at `pods`."""
    held = Held(peer, pods, f"held-{peer.name.replace(' ', '-')}")
    try:
        memory = peer.memory()
        held.time(
            "ListContainerStats", api_pb2.ListContainerStatsRequest(), rounds, f"ListContainerStats {pods}"
        )
        held.time(
            "ListPodSandboxStats",
            api_pb2.ListPodSandboxStatsRequest(),
            rounds,
            f"ListPodSandboxStats {pods}",
        )
        held.time("ListPodSandbox", api_pb2.ListPodSandboxRequest(), rounds, f"ListPodSandbox {pods}")
        held.fill(max(containers - pods, 0))
        held.time("ListContainers", api_pb2.ListContainersRequest(), rounds, f"ListContainers {containers}")
    finally:
        held.close()
    return memory


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile of few values, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def summary(peers: Sequence[Peer]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """operation -> concurrency -> peer -> p50 and p90 in milliseconds."""
    result: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for peer in peers:
        for name, by_parallel in peer.timings.items():
            for parallel, values in by_parallel.items():
                cell = {"p50": round(statistics.median(values), 2), "p90": round(quantile(values, 0.9), 2)}
                result.setdefault(name, {}).setdefault(str(parallel), {})[peer.name] = cell
    return result


def rows(
    results: dict[str, dict[str, dict[str, dict[str, float]]]],
) -> Iterator[tuple[str, str, str, float, float]]:
    """The summary, flat: operation, concurrency, peer, p50, p90."""
    for name, by_parallel in results.items():
        for parallel, by_peer in by_parallel.items():
            for peer, cell in by_peer.items():
                yield name, parallel, peer, cell["p50"], cell["p90"]
