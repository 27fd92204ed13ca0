"""One look at a node, on a page."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from triptych_cli.render import duration, size
from triptych_cli.status.model import Daemon, Node, Pull, Session, State

_STYLES = {State.SERVING: "green", State.NOT_SERVING: "yellow", State.DOWN: "red"}


def page(node: Node) -> RenderableType:
    """Daemons, problems, numbers, and what is under way."""
    return Group(*_parts(node))


def _parts(node: Node) -> Iterator[RenderableType]:
    yield daemons(node.daemons)
    yield from _problems(node)
    yield Text()
    yield _numbers(node)
    if node.images and node.images.pulls:
        yield Text()
        yield pulls(node.images.pulls)
    if node.streaming and node.streaming.sessions:
        yield Text()
        yield sessions(node.streaming.sessions)


def _grid(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
    return made


def daemons(rows: tuple[Daemon, ...]) -> Table:
    """One line a daemon."""
    made = _grid("DAEMON", "STATE", "VERSION", ">PID", ">UP", ">MEMORY", ">ANSWER", "SOCKET")
    for row in rows:
        made.add_row(
            row.name.unit,
            Text(row.state.value, _STYLES[row.state]),
            row.version or "-",
            str(row.pid or "-"),
            duration(row.uptime) if row.uptime else "-",
            size(row.memory) if row.memory else "-",
            duration(row.answer) if row.answer else "-",
            row.socket,
        )
    return made


def _problems(node: Node) -> Iterator[Text]:
    for daemon in node.daemons:
        if daemon.problem:
            yield Text(f"\n{daemon.problem}", "red")
            if daemon.hint:
                yield Text(f"  {daemon.hint}")
    for problem in node.problems:
        yield Text(f"\n{problem}", "red")
    for condition in node.runtime.conditions if node.runtime else ():
        if not condition.status:
            yield Text(f"\n{condition.type} is false: {condition.reason}: {condition.message}", "red")


def _numbers(node: Node) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=False)
    made.add_column(style="bold")
    made.add_column()
    if node.runtime:
        met = ", ".join(c.type for c in node.runtime.conditions if c.status)
        made.add_row("conditions", met or "none is met")
        made.add_row("pods", _counted(node.runtime.pods))
        made.add_row("containers", _counted(node.runtime.containers))
        names = sorted({name for name in node.runtime.handlers if name})
        made.add_row("handlers", ", ".join(names) or "default")
    if node.images:
        made.add_row("images", f"{node.images.count}, {size(node.images.size)}")
        for used in node.images.filesystems:
            made.add_row("disk", f"{size(used.used_bytes)} in {used.inodes} inodes below {used.mountpoint}")
        made.add_row("pulls", f"{len(node.images.pulls)} running")
    if node.streaming:
        active = sum(session.active for session in node.streaming.sessions)
        waiting = len(node.streaming.sessions) - active
        made.add_row("sessions", f"{active} active, {waiting} waiting for their client")
    return made


def _counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in sorted(numbers.items())) or "none"


def pulls(rows: tuple[Pull, ...]) -> Table:
    """One line a running pull."""
    made = _grid("PULL", "STAGE", ">RECEIVED", ">OF", ">LAYERS", ">SINCE", "FROM")
    for row in rows:
        made.add_row(
            row.reference,
            row.stage,
            size(row.received),
            size(row.total) if row.total else "-",
            f"{row.layers_done}/{row.layers}",
            duration(row.seconds),
            row.host or "-",
        )
    return made


def sessions(rows: tuple[Session, ...]) -> Table:
    """One line a session."""
    made = _grid("SESSION", "KIND", "TARGET", "STATE", "PROTOCOL", ">SINCE", ">IN", ">OUT", ">INSTANCE")
    for row in rows:
        made.add_row(
            row.id,
            row.kind,
            row.target,
            "active" if row.active else "waiting",
            row.protocol or "-",
            duration(row.seconds),
            size(row.bytes_in),
            size(row.bytes_out),
            str(row.instance or "-"),
        )
    return made
