"""`pull` and `pulls`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click
from triptych_errors import Code

from triptych_cli import render
from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CallFailed, CliError
from triptych_cli.image.credentials import auth, credential_options
from triptych_cli.options import output_option, pass_context

if TYPE_CHECKING:
    from triptych.image.v1.image_pb2 import PullProgress


@click.command()
@click.argument("reference")
@click.option("-q", "--quiet", is_flag=True, help="Print the image ID only.")
@credential_options
@output_option
@pass_context
def pull(context: Context, reference: str, quiet: bool, user: str | None, password_stdin: bool) -> None:
    """Pull an image; one that is pulled already by somebody is joined. Prints the image ID."""
    from runtime.v1 import api_pb2
    from triptych.image.v1 import image_pb2_grpc

    from triptych_cli.rpc import channel

    request = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=reference))
    request.image.user_specified_image = reference
    credentials = auth(user, password_stdin)
    if credentials is not None:
        request.auth.CopyFrom(credentials)
    started = time.monotonic()
    with channel(context, DaemonName.IMAGE) as opened:
        messages = image_pb2_grpc.ImageAdminServiceStub(opened).PullImage(request)
        last = _watch(messages, quiet=quiet or context.json)
    if last is None or not last.done:
        raise CliError(f"pull of {reference} ended without a result", hint="journalctl -u triptych-image")
    if last.error:
        raise CallFailed(last.error, _code(last.error_code))
    seconds = time.monotonic() - started
    if context.json:
        received = sum(layer.received_bytes for layer in last.layers)
        done = {"reference": reference, "id": last.image_id, "seconds": seconds, "received_bytes": received}
        render.as_json({**done, "host": last.host})
    else:
        click.echo(last.image_id)


def _code(number: int) -> Code:
    return Code(number) if number in list(Code) else Code.UNKNOWN


def _watch(messages: Iterable[PullProgress], *, quiet: bool) -> PullProgress | None:
    """Draw a pull until its end; the last message."""
    last: deque[PullProgress] = deque(maxlen=1)
    told = _remembered(messages, last)
    console = render.console(stderr=True)
    if quiet:
        last.extend(told)
    elif console.is_terminal:
        from triptych_cli.image.progress import Bars

        bars = Bars(console, named=False)
        with bars.progress:
            for message in told:
                bars.update(message)
    else:
        from triptych_cli.image.progress import lines

        for line, _ in lines(told):
            click.echo(line, err=True)
    return last[0] if last else None


def _remembered(messages: Iterable[PullProgress], last: deque[PullProgress]) -> Iterator[PullProgress]:
    for message in messages:
        last.append(message)
        yield message


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on and show pulls that start, until interrupted.")
@output_option
@pass_context
def pulls(context: Context, follow: bool) -> None:
    """Show the pulls that run, whoever asked for them."""
    from triptych.image.v1 import image_pb2, image_pb2_grpc

    from triptych_cli.rpc import channel

    with channel(context, DaemonName.IMAGE) as opened:
        if not follow:
            _once(context, opened)
            return
        watching = image_pb2_grpc.ImageAdminServiceStub(opened).WatchPulls(image_pb2.WatchPullsRequest())
        try:
            _follow(context, watching)
        finally:
            watching.cancel()


def _once(context: Context, opened: object) -> None:
    import dataclasses

    from triptych_cli.status.collect import running_pulls
    from triptych_cli.status.view import pulls as table

    running = running_pulls(opened, 0.3)  # type: ignore[arg-type]
    if context.json:
        render.as_json([dataclasses.asdict(row) for row in running])
    elif running:
        render.console().print(table(running))
    else:
        click.echo("no pull runs")


def _follow(context: Context, watching: Iterator[PullProgress]) -> None:
    if context.json:
        import json

        from google.protobuf import json_format

        for told in watching:
            click.echo(json.dumps(json_format.MessageToDict(told, preserving_proto_field_name=True)))
        return
    from triptych_cli.image.progress import Bars, lines

    console = render.console()
    if not console.is_terminal:
        for line, told in lines(watching):
            click.echo(f"{line}: {told.error}" if told.error else line)
        return
    bars = Bars(console, named=True)
    with bars.progress:
        for told in watching:
            bars.update(told)
            if told.done:
                bars.progress.console.print(f"{told.reference} {told.error or told.image_id}")
