"""The command itself."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import click

from triptych_cli.context import Context
from triptych_cli.options import output_option, pass_context


@click.command()
@click.option(
    "-d",
    "--delay",
    type=click.FloatRange(min=0.2),
    default=2.0,
    show_default=True,
    help="Seconds between samples.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), help="Screens until it ends; default: endless.")
@click.option(
    "-s",
    "--sort",
    type=click.Choice(["cpu", "memory", "disk", "name"]),
    default="cpu",
    show_default=True,
    help="Order of the containers.",
)
@output_option
@pass_context
def top(context: Context, delay: float, count: int | None, sort: str) -> None:
    """The node, live: daemons, running pulls, sessions, and what each container uses.

    Without a terminal, or with -o json, it prints one sample after another; -n 2 gives CPU shares once.
    """
    from rich.live import Live

    from triptych_cli import render
    from triptych_cli.top.sample import take
    from triptych_cli.top.view import Order, screen

    console = render.console()
    sample, shown = take(context, None), 0
    if context.json or not console.is_terminal:
        while True:
            if context.json:
                render.as_json(_document(sample))
            else:
                console.print(screen(sample, Order(sort), 1000))
            shown += 1
            if count is not None and shown >= count:
                return
            time.sleep(delay)
            sample = take(context, sample)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while count is None or shown < count:
            live.update(screen(sample, Order(sort), max(5, console.height - 15)), refresh=True)
            shown += 1
            time.sleep(delay)
            sample = take(context, sample)


def _document(sample: Any) -> dict[str, Any]:
    from triptych_cli.status.document import document

    containers = [dataclasses.asdict(row) for row in sample.containers]
    cpu = {str(pid): share for pid, share in sample.daemon_cpu.items()}
    return {**document(sample.node), "use": containers, "daemon_cpu": cpu}
