"""`load` and `save`.

The daemon reads and writes the archives itself, by path. Its unit lets it write below /var/lib/triptych
only, so what it saves goes through a directory there and is moved to its place by this command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from triptych_cli import render
from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CliError
from triptych_cli.options import output_option, pass_context

EXCHANGE = Path("/var/lib/triptych/exchange")
"""Below here both the daemon and this command may write."""


@click.command()
@click.argument("file", default="-")
@click.option("--name", default="", help="Name for an archive that has none inside.")
@output_option
@pass_context
def load(context: Context, file: str, name: str) -> None:
    """Take images from FILE: an OCI layout or docker archive, plain or compressed; - is standard input."""
    from triptych.image.v1 import image_pb2, image_pb2_grpc

    from triptych_cli.rpc import channel

    with _readable(file) as path, channel(context, DaemonName.IMAGE) as opened:
        request = image_pb2.LoadRequest(path=str(path), reference=name)
        answer = image_pb2_grpc.ImageAdminServiceStub(opened).Load(request)
    if context.json:
        render.as_json({"references": list(answer.references), "ids": list(answer.image_ids)})
    else:
        for line in answer.references or answer.image_ids:
            click.echo(line)


@contextlib.contextmanager
def _readable(file: str) -> Iterator[Path]:
    """A path of what is to be loaded, as the daemon sees it."""
    if file != "-":
        path = Path(file).resolve()
        if not path.exists():
            raise CliError(f"{file} does not exist")
        yield path
        return
    if sys.stdin.isatty():
        raise CliError(
            "standard input is a terminal", hint="triptych image load FILE, or pipe an archive in"
        )
    with _exchange(Path(tempfile.gettempdir())) as directory:
        path = directory / "archive.tar"
        with path.open("wb") as target:
            shutil.copyfileobj(sys.stdin.buffer, target, 1 << 20)
        yield path


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("-f", "--file", "target", default="-", help="Where to; - (default) is standard output.")
@pass_context
def save(context: Context, images: tuple[str, ...], target: str) -> None:
    """Write IMAGES into one OCI layout tar, which docker load reads too."""
    from triptych.image.v1 import image_pb2, image_pb2_grpc

    from triptych_cli.rpc import channel

    if target == "-" and sys.stdout.isatty():
        raise CliError("standard output is a terminal", hint="-f FILE, or pipe it somewhere")
    final = None if target == "-" else Path(target).resolve()
    if final is not None and not final.parent.is_dir():
        raise CliError(f"{final.parent} is not a directory")
    with _exchange(final.parent if final else Path(tempfile.gettempdir())) as directory:
        made = directory / "archive.tar"
        with channel(context, DaemonName.IMAGE) as opened:
            request = image_pb2.SaveRequest(images=images, path=str(made))
            answer = image_pb2_grpc.ImageAdminServiceStub(opened).Save(request)
        if final is None:
            with made.open("rb") as source:
                shutil.copyfileobj(source, sys.stdout.buffer, 1 << 20)
        else:
            made.chmod(0o600)
            shutil.move(made, final)
            click.echo(f"{final}: {render.size(answer.bytes)}")


@contextlib.contextmanager
def _exchange(otherwise: Path) -> Iterator[Path]:
    """A directory for one archive, removed at the end."""
    parent = otherwise
    if os.access(EXCHANGE.parent, os.W_OK):
        EXCHANGE.mkdir(mode=0o700, exist_ok=True)
        parent = EXCHANGE
    with tempfile.TemporaryDirectory(prefix="triptych-", dir=parent) as directory:
        yield Path(directory)
