"""Numbers and times for people, tables, and JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(number: float) -> str:
    """Bytes with a binary unit and three figures: "1.21 MiB"."""
    value, unit = float(number), 0
    while abs(value) >= 1000 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    if unit == 0:
        return f"{int(value)} B"
    places = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{places}f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """A length of time in its two largest units: "3d 4h", "12.3 ms"."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} µs"
    if seconds < 60:
        return f"{seconds:.1f} s"
    left = int(seconds)
    parts = []
    for name, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number:
            parts.append(f"{number}{name}")
    return " ".join(parts[:2])


def ago(nanoseconds: int, now: float | None = None) -> str:
    """How long ago a Unix time in nanoseconds was; "-" for 0."""
    if nanoseconds <= 0:
        return "-"
    return duration(max(0.0, (time.time() if now is None else now) - nanoseconds / 1e9))


def short(digest: str) -> str:
    """An ID or digest as listings show it."""
    return digest.rpartition(":")[2][:12]


def as_json(value: Any) -> None:
    """Print a JSON document."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def console(*, stderr: bool = False) -> Console:
    """A console that neither wraps nor colours what is piped elsewhere."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 4096
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows in columns, without lines.

    :param right: columns of numbers.
    """
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    console().print(made)
