"""The commands."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triptych_cli.context import Context
from triptych_cli.errors import CliError
from triptych_cli.options import output_option, pass_context

if TYPE_CHECKING:
    from triptych_cli.trace.model import Span
    from triptych_cli.trace.request import Recorder

_QUIET = 0.7
_DEADLINE = 12.0


@click.group()
@click.option("-a", "--attributes", is_flag=True, help="Also show what each span carries.")
@click.option(
    "--config-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/etc/triptych"),
    show_default=True,
    help="Where the daemons' configuration is.",
)
@click.pass_context
def trace(ctx: click.Context, attributes: bool, config_dir: Path) -> None:
    """Run one request with tracing on in all three daemons, and draw its spans as a tree.

    Tracing is turned on by a drop-in and a reload, and put back after; what other requests do meanwhile is
    recorded too, and not shown.
    """
    ctx.meta["attributes"], ctx.meta["config_dir"] = attributes, config_dir


@trace.command()
@output_option
@pass_context
def status(context: Context) -> None:
    """The runtime's Status."""
    _traced(context, lambda recorder: _call(context, recorder, "runtime.v1.RuntimeService/Status", "{}"))


@trace.command()
@click.argument("reference")
@output_option
@pass_context
def pull(context: Context, reference: str) -> None:
    """A pull of REFERENCE."""
    body = json.dumps({"image": {"image": reference}})
    _traced(context, lambda recorder: _call(context, recorder, "runtime.v1.ImageService/PullImage", body))


@trace.command(short_help="RunPodSandbox from FILE; then stop and remove the pod.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--handler", default="", help="Runtime handler.")
@click.option("--keep", is_flag=True, help="Leave the pod running.")
@output_option
@pass_context
def run(context: Context, file: Path, handler: str, keep: bool) -> None:
    """RunPodSandbox from FILE, a pod configuration in JSON as crictl takes it; then stop and remove it."""
    from triptych_cli.trace.request import pod

    _traced(context, lambda recorder: pod(context, recorder, file, handler, keep=keep))


@trace.command(short_help="Any METHOD, with a JSON BODY.")
@click.argument("method")
@click.argument("body", default="{}")
@output_option
@pass_context
def call(context: Context, method: str, body: str) -> None:
    """Any METHOD, such as runtime.v1.RuntimeService/ListContainers, with a JSON BODY."""
    _traced(context, lambda recorder: _call(context, recorder, method, body))


def _call(context: Context, recorder: Recorder, method: str, body: str) -> object:
    from triptych_cli.trace.request import call as invoke

    return invoke(context, recorder, method, body)


def _traced(context: Context, work: Callable[[Recorder], object]) -> None:
    """Do the work with tracing on; draw what came, also when the work failed, and then fail."""
    from triptych_cli.trace.collector import Collector
    from triptych_cli.trace.request import Recorder
    from triptych_cli.trace.switch import tracing

    ctx = click.get_current_context()
    recorder, failed = Recorder(), None
    with Collector() as collector:
        with tracing(context, collector.endpoint, ctx.meta["config_dir"]):
            started = time.time_ns()
            try:
                work(recorder)
            except CliError as error:
                failed = error
            recorder.finish(f"triptych trace {ctx.info_name}", started)
        spans = recorder.spans + collector.settle(recorder.trace, quiet=_QUIET, deadline=_DEADLINE)
    if failed is not None and len(spans) == 1:
        raise failed  # no request was made
    _draw(context, spans, attributes=ctx.meta["attributes"])
    if failed is not None:
        raise failed
    if len(spans) == len(recorder.spans):
        raise CliError(
            "no daemon sent a span",
            hint="does OTEL_EXPORTER_OTLP_ENDPOINT in a unit name another collector?",
        )


def _draw(context: Context, spans: list[Span], *, attributes: bool) -> None:
    from triptych_cli import render
    from triptych_cli.trace.tree import render as tree

    if context.json:
        from dataclasses import asdict

        render.as_json([asdict(span) for span in sorted(spans, key=lambda span: span.start)])
    else:
        render.console().print(tree(spans, attributes=attributes))


@trace.command(short_help="Draw every trace that daemons send to ADDRESS.")
@click.argument("address", default="127.0.0.1:4317")
@output_option
@pass_context
def listen(context: Context, address: str) -> None:
    """Be the collector at ADDRESS, and draw every trace that arrives, until interrupted.

    For daemons that export all the time: [telemetry] endpoint = "http://127.0.0.1:4317".
    """
    from triptych_cli.trace.collector import Collector

    attributes = click.get_current_context().meta["attributes"]
    waiting: dict[str, list[Span]] = {}
    arrived: dict[str, float] = {}
    with Collector(address) as collector, contextlib.suppress(KeyboardInterrupt):
        click.echo(f"listening on {collector.endpoint}", err=True)
        while True:
            collector.wait(_QUIET)
            for span in collector.take():
                waiting.setdefault(span.trace, []).append(span)
                arrived[span.trace] = time.monotonic()
            ripe = [name for name, at in arrived.items() if time.monotonic() - at >= _QUIET]
            for name in ripe:
                click.echo(f"trace {name}")
                _draw(context, waiting.pop(name), attributes=attributes)
                del arrived[name]
