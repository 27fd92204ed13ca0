"""What traces and metrics cost: the same pod starts on three stacks, taking turns in random order."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from runtime.v1 import api_pb2 as cri
from triptych_cli.status.process import cpu_seconds

from triptych_dev import kubelet
from triptych_dev.benches import report
from triptych_dev.demo import image as demo_image
from triptych_dev.kubelet import Kubelet
from triptych_dev.stack import DAEMONS, Registry, Stack, pss

_STATUSES = 20
_SINK = """
from triptych_cli.trace.collector import Collector
with Collector() as collector:
    print(collector.endpoint, flush=True)
    while True:
        collector.wait(5.0)
        collector.take()
"""


@dataclass(slots=True)
class Subject:
    """One stack and what was measured of it.

    :param starts: milliseconds from RunPodSandbox to a started container.
    :param statuses: milliseconds of a ContainerStatus.
    """

    name: str
    stack: Stack
    starts: list[float] = field(default_factory=list)
    statuses: list[float] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.popen.pid for name, process in self.stack.processes.items()}

    def cpu_now(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids.values())


@contextlib.contextmanager
def _sink() -> Iterator[str]:
    """A collector in a process of its own, that keeps nothing; gives its endpoint."""
    process = subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)


def _subjects(root: Path, endpoint: str) -> list[Subject]:
    traces: dict[str, Any] = {"telemetry": {"endpoint": endpoint}}
    variants = {
        "off": {},
        "traces": traces,
        "traces and metrics": traces | {"metrics": {"address": "127.0.0.1:0"}},
    }
    found = []
    for number, (name, more) in enumerate(variants.items()):
        overrides: dict[str, dict[str, Any]] = {daemon: dict(more) for daemon in DAEMONS}
        overrides["streaming"]["http"] = {"listen": "127.0.0.1:0"}
        stack = Stack(root / str(number), f"triptych-tm{number}", f"10.{91 + number}.0.0/16", overrides)
        found.append(Subject(name, stack))
    return found


async def _start(node: Kubelet, subject: Subject, image: str, turn: int) -> None:
    """One pod from nothing to a running container and away again."""
    runtime = node.runtime
    config = kubelet.pod_config(f"telemetry-{turn}")
    begun = time.perf_counter()
    ran = await runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=60)
    container = kubelet.container_config("sleep", image, ["sleep", "1000"])
    made = await runtime.CreateContainer(
        cri.CreateContainerRequest(
            pod_sandbox_id=ran.pod_sandbox_id, config=container, sandbox_config=config
        ),
        timeout=60,
    )
    await runtime.StartContainer(cri.StartContainerRequest(container_id=made.container_id), timeout=60)
    subject.starts.append((time.perf_counter() - begun) * 1e3)
    asked = cri.ContainerStatusRequest(container_id=made.container_id)
    for _ in range(_STATUSES):
        begun = time.perf_counter()
        await runtime.ContainerStatus(asked, timeout=60)
        subject.statuses.append((time.perf_counter() - begun) * 1e3)
    await runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=ran.pod_sandbox_id), timeout=60)
    await runtime.RemovePodSandbox(
        cri.RemovePodSandboxRequest(pod_sandbox_id=ran.pod_sandbox_id), timeout=60
    )


async def _measure(subjects: list[Subject], image: str, pods: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nodes = {}
        for subject in subjects:
            sockets = (subject.stack.socket("runtime"), subject.stack.socket("image"))
            node = await stack.enter_async_context(kubelet.connect(*sockets))
            spec = cri.ImageSpec(image=image)
            await node.images.PullImage(cri.PullImageRequest(image=spec), timeout=60)
            await _start(node, Subject("warm-up", subject.stack), image, -1)
            subject.cpu = -subject.cpu_now()
            nodes[subject.name] = node
        for turn in range(pods):
            for subject in random.sample(subjects, len(subjects)):
                await _start(nodes[subject.name], subject, image, turn)
        for subject in subjects:
            subject.cpu = (subject.cpu + subject.cpu_now()) / pods * 1e3


@click.command("telemetry")
@click.option("--pods", type=click.IntRange(min=3), default=60, show_default=True, help="Of each stack.")
def main(pods: int) -> None:
    """The cost of telemetry: off, traces to a collector, and metrics beside."""
    machine = report.host()
    with tempfile.TemporaryDirectory(prefix="triptych-bench-") as scratch, _sink() as endpoint:
        registry = Registry(Path(scratch) / "registry")
        subjects = _subjects(Path(scratch), endpoint)
        try:
            registry.start()
            image = demo_image.push(registry.host)
            for subject in subjects:
                subject.stack.write_configuration()
                subject.stack.start()
            asyncio.run(_measure(subjects, image, pods))
            results = {subject.name: _result(subject, subjects[0]) for subject in subjects}
        finally:
            for subject in subjects:
                subject.stack.clean()
            registry.stop()
    _print(results)
    off = results["off"]
    ratios = {}
    for name, result in results.items():
        ratios[f"{name}: start"] = round(1 + result["added_ms"] / off["start_ms"]["p50"], 3)
        ratios[f"{name}: CPU"] = round(result["cpu_ms_per_pod"] / off["cpu_ms_per_pod"], 3)
    report.finish("telemetry", machine, results, ratios)


def _result(subject: Subject, off: Subject) -> dict[str, Any]:
    # Lower quartiles: what else the machine does lengthens the others by far more than a span costs.
    added = report.quantile(subject.starts, 0.25) - report.quantile(off.starts, 0.25)
    return {
        "start_ms": report.middle(subject.starts),
        "added_ms": round(added, 2),
        "status_ms": report.middle(subject.statuses),
        "cpu_ms_per_pod": round(subject.cpu, 1),
        "memory_mb": {name: round(pss([pid]) / 1e6, 1) for name, pid in subject.pids.items()},
    }


def _print(results: dict[str, dict[str, Any]]) -> None:
    table = Table(title="pod start (RunPodSandbox to a started container), ms")
    for column in ("", "p50", "p90", "added to p25", "ContainerStatus p50", "CPU a pod", "memory, MB"):
        table.add_column(column, justify="left" if not column else "right")
    for name, result in results.items():
        memory = " ".join(f"{value:.0f}" for value in result["memory_mb"].values())
        start, status = result["start_ms"], result["status_ms"]["p50"]
        cells = (start["p50"], start["p90"], result["added_ms"], status, result["cpu_ms_per_pod"])
        table.add_row(name, *(f"{cell:.2f}" for cell in cells), memory)
    report.console().print(table)
