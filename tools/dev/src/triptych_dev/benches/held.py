"""Pods that are held while lists, stats and memory are measured, for `./dev bench pods`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from runtime.v1 import api_pb2

from triptych_dev.benches.lives import DEADLINE, Life, Peer
from triptych_dev.benches.memory import Memory


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
            getattr(self._stub, name)(request, timeout=DEADLINE)
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
    life.stub.CreateContainer(request, timeout=DEADLINE)


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
