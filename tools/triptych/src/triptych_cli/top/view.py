"""The screen of `triptych top`."""

from __future__ import annotations

import enum
import time

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from triptych_cli.render import duration, short, size
from triptych_cli.status import view
from triptych_cli.status.model import State
from triptych_cli.top.sample import ContainerUse, Sample


class Order(enum.Enum):
    """What containers are sorted by."""

    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    NAME = "name"


def screen(sample: Sample, order: Order, rows: int) -> RenderableType:
    """Daemons, pulls, sessions, and the first containers in some order.

    :param rows: how many containers are shown.
    """
    parts: list[RenderableType] = [_daemons(sample), Text()]
    node = sample.node
    if node.images and node.images.pulls:
        parts += [view.pulls(node.images.pulls), Text()]
    if node.streaming and node.streaming.sessions:
        parts += [view.sessions(node.streaming.sessions), Text()]
    parts.append(_containers(sample, order, rows))
    return Group(*parts)


def _daemons(sample: Sample) -> Table:
    made = _grid("DAEMON", "STATE", ">CPU", ">MEMORY", ">UP", f"        {time.strftime('%H:%M:%S')}")
    for daemon in sample.node.daemons:
        style = {State.SERVING: "green", State.NOT_SERVING: "yellow", State.DOWN: "red"}[daemon.state]
        made.add_row(
            daemon.name.unit,
            Text(daemon.state.value, style),
            f"{sample.daemon_cpu.get(daemon.pid, 0.0) * 100:.1f}%",
            size(daemon.memory) if daemon.memory else "-",
            duration(daemon.uptime) if daemon.uptime else "-",
        )
    return made


def _containers(sample: Sample, order: Order, rows: int) -> RenderableType:
    if not sample.containers:
        return Text("no container runs")
    made = _grid("CONTAINER", "NAME", "POD", ">CPU", ">MEMORY", ">DISK")
    chosen = sorted(sample.containers, key=lambda row: _key(row, order))
    for row in chosen[:rows]:
        cpu = f"{row.cpu * 100:.1f}%"
        made.add_row(short(row.id), row.name, row.pod, cpu, size(row.memory), size(row.disk))
    if len(chosen) > rows:
        made.add_row(f"and {len(chosen) - rows} more")
    return made


def _key(row: ContainerUse, order: Order) -> tuple[float, str, str]:
    first = {Order.CPU: -row.cpu, Order.MEMORY: -row.memory, Order.DISK: -row.disk, Order.NAME: 0.0}[order]
    return (first, row.pod, row.name)


def _grid(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=True)
    return made
