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
    """Trace the runtime's Status."""
    _call(context, "runtime.v1.RuntimeService/Status", "{}")


@trace.command()
@click.argument("reference")
@output_option
@pass_context
def pull(context: Context, reference: str) -> None:
    """Trace a pull of REFERENCE."""
    _call(context, "runtime.v1.ImageService/PullImage", json.dumps({"image": {"image": reference}}))


@trace.command(short_help="Trace RunPodSandbox from FILE; then stop and remove the pod.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--handler", default="", help="Runtime handler.")
@click.option("--keep", is_flag=True, help="Leave the pod running.")
@output_option
@pass_context
def run(context: Context, file: Path, handler: str, keep: bool) -> None:
    """Trace RunPodSandbox from FILE, a pod configuration in JSON as crictl takes it; then stop and remove
    the pod.
    """
    from triptych_cli.trace.request import read_pod, run_pod

    config = read_pod(file)
    _traced(context, lambda recorder: run_pod(context, recorder, config, handler, keep=keep))


@trace.command(short_help="Trace any METHOD, with a JSON BODY.")
@click.argument("method")
@click.argument("body", default="{}")
@output_option
@pass_context
def call(context: Context, method: str, body: str) -> None:
    """Trace any METHOD, such as runtime.v1.RuntimeService/ListContainers, with a JSON BODY."""
    _call(context, method, body)


def _call(context: Context, method: str, body: str) -> None:
    from triptych_cli.trace.request import call as make
    from triptych_cli.trace.request import parse

    rpc = parse(method, body)
    _traced(context, lambda recorder: make(context, recorder, rpc))


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


def _address(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise click.BadParameter(f"{value!r} is not HOST:PORT")
    return value


@trace.command(short_help="Draw every trace that daemons send to ADDRESS.")
@click.argument("address", default="127.0.0.1:4317", callback=_address)
@output_option
@pass_context
def listen(context: Context, address: str) -> None:
    """Be the collector at ADDRESS (HOST:PORT), and draw every trace that arrives, until interrupted.

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
