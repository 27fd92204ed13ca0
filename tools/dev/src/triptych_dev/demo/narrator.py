"""How the demo speaks: a line a step with its time, details below it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn


@dataclass(slots=True)
class Step:
    """A step that is being taken."""

    details: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a line that is shown below the step."""
        self.details.append(text)


class Narrator:
    """Tells the steps; `times` has the seconds of each."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.times: dict[str, float] = {}

    def title(self, text: str) -> None:
        """Begin a chapter."""
        self.console.print(f"\n[bold]{escape(text)}[/bold]")

    def line(self, text: str) -> None:
        self.console.print(escape(text))

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Take a step; what is said in it appears below its line."""
        taken, started = Step(), time.perf_counter()
        try:
            yield taken
        except BaseException:
            self.console.print(f"  [red]✗[/red] {escape(what)}")
            raise
        seconds = time.perf_counter() - started
        self.times[what] = seconds
        self.console.print(f"  [green]✓[/green] {escape(what):<58}[dim]{_duration(seconds):>10}[/dim]")
        for detail in taken.details:
            self.console.print(f"      [dim]{escape(detail)}[/dim]")

    def progress(self) -> Progress:
        """A bar for each layer of a pull; shown on a terminal only."""
        columns = (TextColumn("      {task.description}"), BarColumn(30), DownloadColumn())
        return Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
