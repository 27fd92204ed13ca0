"""`./dev bench streaming`: exec and port-forward against containerd's built-in server, in one run.

Every peer runs the same container, with the same OCI runtime, and the same client speaks SPDY/3.1 to each,
as the kubelet does. The peers take turns, so that noise of the machine falls on all alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import grpc
from rich.console import Console
from rich.table import Table
from runtime.v1 import api_pb2, api_pb2_grpc

from triptych_dev.benches import stream_load as load
from triptych_dev.benches.containerd import Containerd
from triptych_dev.benches.memory import Memory, of_group
from triptych_dev.benches.networks import NetworkKind, conflist
from triptych_dev.benches.pods import pause_image
from triptych_dev.benches.report import console, finish, host
from triptych_dev.benches.stream_load import Subject
from triptych_dev.errors import DevError
from triptych_dev.ociimages import Pusher, busybox_image
from triptych_dev.stack import Registry, Stack, StackError

OURS = "triptych"
_NAME = "triptych-bstream"
_NEWER = "TRIPTYCH_BENCH_CONTAINERD"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: turns, set-ups a turn, megabytes for one stream, streams, sessions at once."""

    rounds: int
    setups: int
    megabytes: int
    streams: int
    sessions: int


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Turns of every peer.")
@click.option("--setups", default=15, show_default=True, help="Sessions set up in a turn.")
@click.option("--megabytes", default=1024, show_default=True, help="Bytes of one stream.")
@click.option("--streams", default=50, show_default=True, help="Streams of the measurement with many.")
@click.option("--sessions", default=200, show_default=True, help="Sessions at once.")
@click.option("--only", multiple=True, help="Peers to measure, by the beginning of their name.")
def main(rounds: int, setups: int, megabytes: int, streams: int, sessions: int, only: Sequence[str]) -> None:
    """Measure exec and port-forward against containerd.

    TRIPTYCH_BENCH_CONTAINERD=/path/to/containerd adds another containerd to the one in PATH.
    """
    run(Plan(rounds, setups, megabytes, streams, sessions), only)


def run(plan: Plan | None = None, only: Sequence[str] = ()) -> dict[str, Any]:
    """Measure, print the table and the last line, and give what that line holds.

    :raises DevError: the host lacks something.
    """
    if os.geteuid() != 0:
        raise DevError("bench streaming needs root: it makes namespaces, mounts and bridges")
    plan = plan or Plan(3, 15, 1024, 50, 200)
    machine, out = host(), console()
    root = Path(tempfile.mkdtemp(prefix=f"{_NAME}-"))
    registry = Registry(root / "registry")
    try:
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(registry.stop)
            registry.start()
            subjects = [each for each in _subjects(root, registry, cleanup, out) if _wanted(each.name, only)]
            asyncio.run(_measure(subjects, plan, out))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    results = {each.name: _summary(each) for each in subjects}
    ratios = _ratios(results)
    _print(out, results, ratios)
    finish("streaming", machine, results, ratios)
    return {"bench": "streaming", "host": machine, "results": results, "ratios": ratios}


def _wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(name.startswith(beginning) for beginning in only)


async def _measure(subjects: Sequence[Subject], plan: Plan, out: Console) -> None:
    for subject in subjects:  # what is only slow the first time
        await load.setup_latency(subject, 3)
        subject.results.clear()
    per_stream = max(1, plan.megabytes // plan.streams)
    for turn in range(plan.rounds):
        out.print(f"round {turn + 1} of {plan.rounds}", highlight=False)
        begin = turn % len(subjects)
        for subject in [*subjects[begin:], *subjects[:begin]]:
            await load.setup_latency(subject, plan.setups)
            await load.exec_throughput(subject, 1, plan.megabytes)
            await load.exec_throughput(subject, plan.streams, per_stream)
            await load.stdin_throughput(subject, plan.megabytes // 2)
            await load.forward_throughput(subject, 1, plan.megabytes)
            await load.forward_throughput(subject, plan.streams, per_stream)
            await load.round_trips(subject, 2000)
    for subject in subjects:
        out.print(f"{plan.sessions} sessions at once: {subject.name}", highlight=False)
        await load.many_sessions(subject, plan.sessions)


# Starting the peers


def _subjects(
    root: Path, registry: Registry, cleanup: contextlib.ExitStack, out: Console
) -> Iterator[Subject]:
    pusher = Pusher(registry.host)
    image = pusher.push("bench/busybox", "1", busybox_image())
    pause = pusher.push("bench/pause", "1", pause_image())
    yield _triptych(root, cleanup, image)
    programs = [path for path in (shutil.which("containerd"), os.environ.get(_NEWER)) if path]
    if not programs:
        out.print("containerd is not installed (apt install containerd): nothing to compare with")
    for index, program in enumerate(programs):
        own = root / f"s{index}"
        network = conflist(
            NetworkKind.PLAIN, f"bs{index}", f"tribs{index}", f"10.{121 + index}.0.0/16", own / "ipam"
        )
        daemon = Containerd(own, program, "crun", pause, network)
        cleanup.callback(daemon.stop)
        name = f"containerd {daemon.version()}"
        try:
            daemon.start()
            yield _subject(
                name, daemon.socket, daemon.socket, image, cleanup, _server(daemon.memory), _pids(daemon)
            )
        except (StackError, grpc.RpcError) as error:
            out.print(f"{name} is left out, it cannot run a pod here: {str(error).splitlines()[0]}")


def _server(memory: Callable[[], Mapping[str, Memory]]) -> Callable[[], dict[str, Memory]]:
    def read() -> dict[str, Memory]:
        found = memory()
        return {"server": found["daemon"], "all": found["all"]}

    return read


def _pids(daemon: Containerd) -> Callable[[], list[int]]:
    def read() -> list[int]:
        main = [daemon.process.popen.pid] if daemon.process is not None else []
        return [*main, *daemon.shims()]

    return read


def _triptych(root: Path, cleanup: contextlib.ExitStack, image: str) -> Subject:
    stack = Stack(root / "stack", _NAME, "10.120.0.0/16", {"runtime": {"cgroup_driver": "cgroupfs"}})
    cleanup.callback(stack.clean)
    stack.write_configuration()
    stack.start()

    def pids() -> list[int]:
        return [process.popen.pid for process in stack.processes.values()]

    def memory() -> dict[str, Memory]:
        streaming = stack.processes["streaming"].popen.pid
        return {"server": of_group([streaming]), "all": of_group(pids())}

    return _subject(OURS, stack.socket("runtime"), stack.socket("image"), image, cleanup, memory, pids)


def _subject(
    name: str,
    runtime_socket: str,
    image_socket: str,
    image: str,
    cleanup: contextlib.ExitStack,
    memory: Callable[[], dict[str, Memory]],
    pids: Callable[[], list[int]],
) -> Subject:
    """Pull the image and run the pod."""
    channel = cleanup.enter_context(grpc.insecure_channel(f"unix:{runtime_socket}"))
    runtime = api_pb2_grpc.RuntimeServiceStub(channel)
    with grpc.insecure_channel(f"unix:{image_socket}") as images:
        spec = api_pb2.ImageSpec(image=image)
        api_pb2_grpc.ImageServiceStub(images).PullImage(api_pb2.PullImageRequest(image=spec), timeout=120)
    pod = api_pb2.PodSandboxConfig(hostname="bench")
    pod.metadata.name, pod.metadata.uid, pod.metadata.namespace = "bench", f"uid-{name}", "bench"
    options = pod.linux.security_context.namespace_options
    options.pid, options.network, options.ipc = api_pb2.CONTAINER, api_pb2.POD, api_pb2.POD
    sandbox = runtime.RunPodSandbox(api_pb2.RunPodSandboxRequest(config=pod), timeout=120).pod_sandbox_id
    config = api_pb2.ContainerConfig(command=["/bin/sh", "-c", load.SERVER])
    config.metadata.name, config.image.image = "main", image
    config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
    create = api_pb2.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=pod)
    container = runtime.CreateContainer(create, timeout=120).container_id
    runtime.StartContainer(api_pb2.StartContainerRequest(container_id=container), timeout=120)

    def remove() -> None:
        runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=sandbox), timeout=120)
        runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=sandbox), timeout=120)

    cleanup.callback(remove)
    return Subject(name, runtime, sandbox, container, memory, pids)


# Figures


def _summary(subject: Subject) -> dict[str, float]:
    """The median of each measurement."""
    return {name: round(statistics.median(values), 2) for name, values in subject.results.items()}


def _ratios(results: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Ours against each peer; above 1 ours is better, for rates as for times and memory."""
    ours = results.get(OURS, {})
    ratios: dict[str, dict[str, float]] = {}
    for peer, theirs in results.items():
        if peer == OURS:
            continue
        found = ratios[peer] = {}
        for name, value in ours.items():
            more_is_better = name.endswith("/s")
            above, below = (value, theirs[name]) if more_is_better else (theirs[name], value)
            if below > 0:
                found[name] = round(above / below, 2)
    return ratios


def _print(
    out: Console, results: Mapping[str, Mapping[str, float]], ratios: Mapping[str, Mapping[str, float]]
) -> None:
    table = Table(title="streaming (medians; a ratio above 1: triptych is better)")
    table.add_column("measurement")
    for name in results:
        table.add_column(name, justify="right")
        if name != OURS:
            table.add_column("ratio", justify="right")
    for measurement in next(iter(results.values()), {}):
        row = [measurement]
        for name, values in results.items():
            row.append(f"{values.get(measurement, 0):,.1f}")
            if name != OURS:
                row.append(f"{ratios[name].get(measurement, 0):.2f}")
        table.add_row(*row)
    out.print(table)
