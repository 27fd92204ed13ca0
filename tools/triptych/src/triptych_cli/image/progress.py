"""Progress bars of pulls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from triptych_cli.render import short, size

if TYPE_CHECKING:
    from rich.console import Console
    from triptych.image.v1.image_pb2 import LayerProgress, PullProgress

_ENDED = {"done", "present"}


def stage(value: int) -> str:
    """A stage in words: "fetching"."""
    from triptych.image.v1 import image_pb2

    return image_pb2.PullStage.Name(value).removeprefix("PULL_STAGE_").lower()  # type: ignore[arg-type]


class _Received(ProgressColumn):
    """Received of total, and how much it became."""

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text("")
        unpacked = task.fields.get("unpacked", 0)
        text = f"{size(task.completed):>9} of {size(task.total)}"
        return Text(text + (f", {size(unpacked)} unpacked" if unpacked else ""))


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{size(speed)}/s" if speed else "", "cyan")


class Bars:
    """A bar for each layer of each pull that has told of itself."""

    def __init__(self, console: Console, *, named: bool) -> None:
        """:param named: more than one pull may show, so each line begins with its reference."""
        self.progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[stage]:<10}"),
            BarColumn(bar_width=24),
            _Received(),
            _Speed(),
            TimeElapsedColumn(),
            console=console,
        )
        self._named = named
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def update(self, told: PullProgress) -> None:
        """Show what a message says."""
        for layer in told.layers:
            self._layer(told, layer)
        if not told.layers and not told.done:
            task = self._task(told.reference, "", "")
            self.progress.update(task, stage=stage(told.stage))
        elif (told.reference, "") in self._tasks:
            self.progress.remove_task(self._tasks.pop((told.reference, "")))
        if told.done:
            self._end(told)

    def _layer(self, told: PullProgress, layer: LayerProgress) -> None:
        task = self._task(told.reference, layer.digest, short(layer.digest))
        word = stage(layer.stage)
        received = layer.total_bytes if word in _ENDED else layer.received_bytes
        self.progress.update(
            task,
            total=layer.total_bytes or None,
            completed=received,
            stage=word,
            unpacked=layer.unpacked_bytes,
        )

    def _end(self, told: PullProgress) -> None:
        for key in [key for key in self._tasks if key[0] == told.reference]:
            task = self._tasks.pop(key)
            if self._named:
                self.progress.remove_task(task)
            else:
                self.progress.stop_task(task)

    def _task(self, reference: str, digest: str, label: str) -> TaskID:
        key = (reference, digest)
        if key not in self._tasks:
            name = f"{reference} {label}".strip() if self._named or not label else label
            self._tasks[key] = self.progress.add_task(name, total=None, stage="", unpacked=0)
        return self._tasks[key]


def lines(messages: Iterable[PullProgress]) -> Iterable[tuple[str, PullProgress]]:
    """For output that is no terminal: a line whenever a layer or pull changes its stage."""
    seen: dict[tuple[str, str], str] = {}
    for told in messages:
        for layer in told.layers:
            word = stage(layer.stage)
            if seen.get((told.reference, layer.digest)) != word:
                seen[told.reference, layer.digest] = word
                total = f", {size(layer.total_bytes)}" if layer.total_bytes else ""
                yield f"{told.reference} {short(layer.digest)} {word}{total}", told
        word = stage(told.stage)
        if told.done or seen.get((told.reference, "")) != word:
            seen[told.reference, ""] = word
            yield f"{told.reference} {word}", told
