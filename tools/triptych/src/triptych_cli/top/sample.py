"""CPU shares from two samples of counters."""

from __future__ import annotations

import time
from dataclasses import dataclass

from runtime.v1 import api_pb2, api_pb2_grpc

from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CliError
from triptych_cli.rpc import channel
from triptych_cli.status import process
from triptych_cli.status.collect import collect
from triptych_cli.status.model import Node


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """What one container uses.

    :param cpu_seconds: since its start.
    :param cpu: cores in use since the sample before; 0.0 in the first.
    :param memory: working set in bytes.
    :param disk: bytes of its writable layer.
    """

    id: str
    pod: str
    name: str
    cpu_seconds: float
    cpu: float
    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything that one screen shows.

    :param daemon_cpu_seconds: CPU time of each daemon's process, by its pid.
    :param daemon_cpu: cores each daemon used since the sample before, by its pid.
    """

    at: float
    node: Node
    containers: tuple[ContainerUse, ...]
    daemon_cpu_seconds: dict[int, float]
    daemon_cpu: dict[int, float]


def take(context: Context, before: Sample | None) -> Sample:
    """Look at the node now; shares are since `before`."""
    node, now = collect(context), time.monotonic()
    span = now - before.at if before else 0.0
    pids = [daemon.pid for daemon in node.daemons if daemon.pid]
    used = {pid: process.cpu_seconds(pid) for pid in pids}
    shares = {
        pid: _share(used[pid], before.daemon_cpu_seconds.get(pid) if before else None, span) for pid in pids
    }
    earlier = {row.id: row.cpu_seconds for row in before.containers} if before else {}
    return Sample(now, node, _containers(context, earlier, span), used, shares)


def _share(now: float, before: float | None, span: float) -> float:
    return max(0.0, now - before) / span if before is not None and span > 0 else 0.0


def _containers(context: Context, earlier: dict[str, float], span: float) -> tuple[ContainerUse, ...]:
    try:
        with channel(context, DaemonName.RUNTIME) as opened:
            stub = api_pb2_grpc.RuntimeServiceStub(opened)
            stats = stub.ListContainerStats(
                api_pb2.ListContainerStatsRequest(), timeout=context.timeout
            ).stats
    except CliError:
        return ()
    return tuple(_use(entry, earlier, span) for entry in stats)


def _use(entry: api_pb2.ContainerStats, earlier: dict[str, float], span: float) -> ContainerUse:
    seconds = entry.cpu.usage_core_nano_seconds.value / 1e9
    labels = entry.attributes.labels
    namespace = labels.get("io.kubernetes.pod.namespace", "")
    pod = labels.get("io.kubernetes.pod.name", "")
    return ContainerUse(
        entry.attributes.id,
        f"{namespace}/{pod}" if pod else "-",
        entry.attributes.metadata.name,
        seconds,
        _share(seconds, earlier.get(entry.attributes.id), span),
        entry.memory.working_set_bytes.value,
        entry.writable_layer.used_bytes.value,
    )
