"""`./dev bench pods`: the life cycle of pods and containers against containerd, in one run on one machine.

Every peer gets the same requests over its own CRI socket, with the same kind of network and the same OCI
runtimes; the peers take turns round by round, so that noise of the machine falls on all alike. The floor is
what cannot be avoided: a CNI plugin, conmon and the OCI runtime run by hand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import grpc
from rich.console import Console
from runtime.v1 import api_pb2, api_pb2_grpc

from triptych_dev.benches import groups, tables
from triptych_dev.benches.containerd import Containerd, plugin_directory
from triptych_dev.benches.floor import Floor
from triptych_dev.benches.held import Held, lists, memory_at
from triptych_dev.benches.lives import Peer, lives
from triptych_dev.benches.memory import Memory, children, find, of_group
from triptych_dev.benches.networks import NetworkKind, conflist
from triptych_dev.benches.report import console, finish, host
from triptych_dev.errors import DevError
from triptych_dev.ociimages import Layer, Pusher, build, busybox_image
from triptych_dev.stack import Registry, Stack, StackError, as_installed

OURS = "triptych"
_NAME = "triptych-bench"
_NEWER = "TRIPTYCH_BENCH_CONTAINERD"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    :param rounds: turns of every peer at each concurrency.
    :param singles: lives one after another in a turn at concurrency 1.
    :param pods: pods that are held for lists, stats and memory.
    :param many: pods for a second look at the memory; 0 for none.
    """

    rounds: int
    singles: int
    parallel: tuple[int, ...]
    pods: int
    containers: int
    many: int
    network: NetworkKind


@dataclass(slots=True)
class Run:
    """A run in progress: what was started, and what was found."""

    plan: Plan
    console: Console
    root: Path
    registry: Registry
    begun: float = field(default_factory=time.monotonic)
    peers: list[Peer] = field(default_factory=list)
    floor: Floor | None = None
    memory: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)

    def say(self, text: str) -> None:
        self.console.print(f"{time.monotonic() - self.begun:5.0f} s  {text}", highlight=False)


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Turns of every peer.")
@click.option("--singles", default=5, show_default=True, help="Lives in a turn at concurrency 1.")
@click.option("--parallel", "-p", multiple=True, type=int, default=(1, 5, 20), show_default=True)
@click.option("--pods", default=20, show_default=True, help="Pods that run for lists, stats and memory.")
@click.option("--containers", default=1000, show_default=True, help="Containers in lists; 0: no lists.")
@click.option("--many", default=0, help="Measure the memory with this many pods too, such as 110.")
@click.option("--network", type=click.Choice([kind.value for kind in NetworkKind]), default="plain")
@click.option("--only", multiple=True, help="Peers to measure, by the beginning of their name.")
def main(
    rounds: int,
    singles: int,
    parallel: tuple[int, ...],
    pods: int,
    containers: int,
    many: int,
    network: str,
    only: tuple[str, ...],
) -> None:
    """Measure the life cycle of pods against containerd, with crun and with runc.

    TRIPTYCH_BENCH_CONTAINERD=/path/to/containerd adds another containerd. NETWORK: plain (bridge, portmap),
    masquerade (the same with ipMasq) or default (what deploy/cni installs); the same for all.
    """
    if os.geteuid() != 0:
        raise DevError("bench pods needs root: it makes namespaces, mounts and bridges")
    plan = Plan(rounds, singles, parallel, pods, containers, many, NetworkKind(network))
    machine = host()
    root = Path(tempfile.mkdtemp(prefix="triptych-bench-"))
    run = Run(plan, console(), root, Registry(root / "registry"))
    try:
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(run.registry.stop)
            cleanup.callback(groups.remove_all)
            for peer in _start(run, cleanup, only):
                run.peers.append(peer)
            _measure(run)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    _report(run, machine)


def _start(run: Run, cleanup: contextlib.ExitStack, only: Sequence[str]) -> Iterator[Peer]:
    """Start every peer that is here and wanted, with the images pulled."""
    run.registry.start()
    pusher = Pusher(run.registry.host)
    image = pusher.push("bench/busybox", "1", busybox_image())
    pause = pusher.push("bench/pause", "1", pause_image())

    def wanted(name: str) -> bool:
        return not only or any(name.startswith(beginning) for beginning in only)

    if wanted(OURS):
        yield _start_triptych(run, cleanup, image)
    if wanted("by hand"):
        network = conflist(run.plan.network, "floor", "tribenchf0", "10.101.0.0/16", run.root / "floor/ipam")
        run.floor = Floor(run.root / "floor", network, plugin_directory())
        cleanup.callback(run.floor.clean)
        run.floor.prepare()
    index = 0
    for label, program in _containerds(run).items():
        for runtime in ("crun", "runc"):
            name = f"{label} {runtime}"
            index += 1
            if wanted(name):
                peer = _start_containerd(run, cleanup, name, index, program, runtime, image, pause)
                if peer is not None:
                    yield peer


def _containerds(run: Run) -> dict[str, str]:
    programs = [path for path in (shutil.which("containerd"), os.environ.get(_NEWER)) if path]
    if not programs:
        run.say("containerd is not installed (apt install containerd): there is nothing to compare with")
    found = {}
    for path in programs:
        version = Containerd(run.root, path, "", "", {}).version()
        found[f"containerd {version}"] = path
    return found


def _start_triptych(run: Run, cleanup: contextlib.ExitStack, image: str) -> Peer:
    runtime = {"cgroup_driver": "cgroupfs"}
    stack = Stack(run.root / "stack", _NAME, "10.100.0.0/16", {"runtime": runtime}, programs=as_installed())
    cleanup.callback(stack.clean)
    stack.write_configuration()
    network = conflist(run.plan.network, _NAME, stack.bridge, stack.subnet, stack.root / "ipam")
    stack.write_network(network)
    stack.start()
    with stack.images() as images:
        _pull(images, image)

    def memory() -> Mapping[str, Memory]:
        daemons = {name: process.popen.pid for name, process in stack.processes.items()}
        monitors = find(lambda text: "conmon" in text and f"{stack.state}/" in text)
        inits = [pid for pid in children(daemons.values()) if pid not in monitors]
        parts = {name: of_group([pid]) for name, pid in daemons.items()}
        every = [*daemons.values(), *inits, *monitors]
        return {
            **parts,
            "pods": of_group([*monitors, *inits]),
            "all": of_group(every),
        }

    run.say("triptych: three daemons, crun")
    return Peer(OURS, stack.socket("runtime"), image, run.root / "logs/triptych", OURS, memory)


def _start_containerd(
    run: Run,
    cleanup: contextlib.ExitStack,
    name: str,
    index: int,
    program: str,
    runtime: str,
    image: str,
    pause: str,
) -> Peer | None:
    """A containerd that can run a pod here; None with a word when it cannot."""
    root = run.root / f"c{index}"
    subnet = f"10.{101 + index}.0.0/16"
    network = conflist(run.plan.network, f"bench{index}", f"tribenchc{index}", subnet, root / "ipam")
    daemon = Containerd(root, program, runtime, pause, network)
    cleanup.callback(daemon.stop)
    peer = Peer(name, daemon.socket, image, run.root / f"logs/{index}", program, daemon.memory)
    try:
        daemon.start()
        with grpc.insecure_channel(f"unix:{daemon.socket}") as channel:
            _pull(api_pb2_grpc.ImageServiceStub(channel), image)
        with Held(peer, 1, "trial"):
            run.say(name)
    except (StackError, grpc.RpcError) as error:
        reason = str(error.details() if isinstance(error, grpc.RpcError) else error).splitlines()
        run.say(f"{name}: left out, it cannot run a pod here: {' ... '.join([reason[0], *reason[-1:]])}")
        daemon.stop()
        return None
    return peer


def _pull(images: api_pb2_grpc.ImageServiceStub, image: str) -> None:
    images.PullImage(api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=image)), timeout=120)


def pause_image() -> Any:
    """A pause image for containerd: catatonit's pause mode, a static C program like Kubernetes' own."""
    program = shutil.which("catatonit")
    if program is None:
        raise DevError("no catatonit: apt install catatonit")
    layer = Layer().file("pause", Path(program).read_bytes(), 0o755)
    return build([layer], {"Entrypoint": ["/pause", "-P"]})


def _measure(run: Run) -> None:
    plan = run.plan
    for peer in run.peers:  # what is only slow the first time
        lives(peer, 1, "warm")
    for turn in range(plan.rounds):
        for parallel in plan.parallel:
            run.say(f"round {turn + 1} of {plan.rounds}, {parallel} at a time")
            for peer in _rotated(run.peers, turn):
                for again in range(plan.singles if parallel == 1 else 1):
                    lives(peer, parallel, f"r{turn}-{parallel}-{again}")
            if run.floor is not None:
                for again in range(plan.singles if parallel == 1 else 1):
                    run.floor.lives(parallel, f"r{turn}-{parallel}-{again}")
    if plan.containers:
        run.say(f"memory at {plan.pods} pods, lists of {plan.containers} containers")
        # What a list takes does not depend on the OCI runtime.
        peers = list({peer.daemon: peer for peer in reversed(run.peers)}.values())[::-1]
        for name, found in lists(peers, plan.pods, plan.containers, plan.rounds * 10).items():
            _note_memory(run, name, plan.pods, found)
    for peer in run.peers if plan.many else ():
        run.say(f"memory at {plan.many} pods: {peer.name}")
        _note_memory(run, peer.name, plan.many, memory_at(peer, plan.many))


def _rotated(peers: Sequence[Peer], turn: int) -> list[Peer]:
    """The peers, another one first in every round."""
    begin = turn % len(peers) if peers else 0
    return [*peers[begin:], *peers[:begin]]


def _note_memory(run: Run, peer: str, pods: int, found: Mapping[str, Memory]) -> None:
    cell = {
        part: {"pss_mb": round(memory.pss / 1e6, 1), "alone_mb": round(memory.alone / 1e6, 1)}
        for part, memory in found.items()
    }
    run.memory.setdefault(str(pods), {})[peer] = cell


def _report(run: Run, machine: Mapping[str, Any]) -> None:
    timings = {peer.name: peer.timings for peer in run.peers}
    floor = run.floor.timings if run.floor is not None else {}
    results = tables.summary(timings)
    ratios = tables.ratios(results, OURS)
    by_hand = tables.summary({"by hand": floor})
    for table in tables.life_tables(results, ratios):
        run.console.print(table)
    if by_hand:
        run.console.print(tables.floor_table(by_hand))
    if run.memory:
        run.console.print(tables.memory_table(run.memory))
        ratios["memory"] = tables.memory_ratios(run.memory, OURS)
    options = {"network": run.plan.network.value, "rounds": run.plan.rounds}
    everything = {"life": results, "floor": by_hand, "memory_mb": run.memory, "options": options}
    finish("pods", machine, everything, ratios)
