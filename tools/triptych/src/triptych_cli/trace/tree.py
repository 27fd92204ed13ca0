"""Spans as a tree with a time line beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from triptych_cli.render import duration
from triptych_cli.trace.model import Span

_LINE = 32
_STYLES = {
    "triptych-runtime": "cyan",
    "triptych-image": "green",
    "triptych-streaming": "magenta",
}
_HIDDEN = frozenset(("rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"))


@dataclass(frozen=True, slots=True)
class Node:
    """A span in its place.

    :param guide: the lines that lead to it: "│  ├─ ".
    :param below: the lines that go on under it, as far as its children.
    """

    span: Span
    guide: str
    below: str


def walk(spans: Sequence[Span]) -> Iterator[Node]:
    """The spans as trees, depth first, each parent's children by their start.

    A span whose parent is not among them begins a tree of its own, so that nothing that arrived is hidden.
    """
    known = {span.id for span in spans}
    children: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        parent = span.parent if span.parent in known and span.parent != span.id else ""
        children.setdefault(parent, []).append(span)
    for root in children.get("", ()):
        yield from _descend(root, children, "", "")


def _descend(span: Span, children: dict[str, list[Span]], guide: str, below: str) -> Iterator[Node]:
    own = children.get(span.id, [])
    yield Node(span, guide, below + ("│  " if own else "   "))
    for index, child in enumerate(own):
        last = index == len(own) - 1
        branch, trunk = ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield from _descend(child, children, below + branch, below + trunk)


def render(spans: Sequence[Span], *, attributes: bool = False) -> RenderableType:
    """One line a span: its place, its service, when it began, how long it took, and a bar on the time line.

    :param attributes: also what the spans carry.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    made.add_column("SPAN", no_wrap=True)
    made.add_column("SERVICE", no_wrap=True)
    made.add_column("AT", justify="right", no_wrap=True)
    made.add_column("TOOK", justify="right", no_wrap=True)
    made.add_column("", no_wrap=True)
    if not spans:
        return Text("no span has arrived")
    first = min(span.start for span in spans)
    whole = max(max(span.end for span in spans) - first, 1)
    for node in walk(spans):
        span = node.span
        name = Text(node.guide, "dim") + Text(span.name, "red" if span.error else "")
        style = _STYLES.get(span.service, "blue")
        at = duration((span.start - first) / 1e9)
        made.add_row(
            name, Text(span.service, style), at, duration(span.seconds), _bar(span, first, whole, style)
        )
        for line in _details(span, attributes):
            made.add_row(Text(node.below, "dim") + line)
    return made


def _details(span: Span, attributes: bool) -> Iterator[Text]:
    if span.error:
        yield Text(span.error, "red")
    if attributes:
        for key in sorted(span.attributes.keys() - _HIDDEN):
            yield Text(f"{key} = {span.attributes[key]}", "dim")


def _bar(span: Span, first: int, whole: int, style: str) -> Text:
    begin = round((span.start - first) / whole * _LINE)
    length = max(1, round((span.end - span.start) / whole * _LINE))
    begin = min(begin, _LINE - 1)
    return Text(" " * begin + "━" * min(length, _LINE - begin), style)
