"""`load` and `save`.

The daemon reads and writes the archives itself, by path. Its unit lets it write below /var/lib/triptych
only, so what it saves goes through a directory there and is moved to its place by this command.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from triptych_cli import render
from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import WrongInput
from triptych_cli.options import output_option, pass_context

EXCHANGE = Path("/var/lib/triptych/exchange")
"""Below here both the daemon and this command may write."""
_PREFIX = "triptych-"


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
    """A path of what is to be loaded, as the daemon sees it; what is no file is read into one first."""
    path = Path(file)
    if file != "-" and not path.exists():
        raise WrongInput(f"{file} does not exist")
    if file != "-" and (path.is_file() or path.is_dir()):
        yield path.resolve()
        return
    if file == "-" and sys.stdin.isatty():
        raise WrongInput(
            "standard input is a terminal", hint="triptych image load FILE, or pipe an archive in"
        )
    with _exchange(Path(tempfile.gettempdir())) as directory:
        copy = directory / "archive.tar"
        with contextlib.ExitStack() as stack:
            source = sys.stdin.buffer if file == "-" else stack.enter_context(path.open("rb"))
            shutil.copyfileobj(source, stack.enter_context(copy.open("wb")), 1 << 20)
        yield copy


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option(
    "-f", "--file", "target", default="-", help="File to write; - (the default) is standard output."
)
@pass_context
def save(context: Context, images: tuple[str, ...], target: str) -> None:
    """Write IMAGES into one OCI layout tar, which docker load reads too."""
    from triptych.image.v1 import image_pb2, image_pb2_grpc

    from triptych_cli.rpc import channel

    if target == "-" and sys.stdout.isatty():
        raise WrongInput("standard output is a terminal", hint="-f FILE, or pipe it somewhere")
    final = _file_to_make(target)
    with _exchange(final.parent if final else Path(tempfile.gettempdir())) as directory:
        made = directory / "archive.tar"
        with channel(context, DaemonName.IMAGE) as opened:
            request = image_pb2.SaveRequest(images=images, path=str(made))
            answer = image_pb2_grpc.ImageAdminServiceStub(opened).Save(request)
        if final is None:
            with contextlib.ExitStack() as stack:
                source = stack.enter_context(made.open("rb"))
                sink = sys.stdout.buffer if target == "-" else stack.enter_context(Path(target).open("wb"))
                shutil.copyfileobj(source, sink, 1 << 20)
        else:
            made.chmod(0o600)
            shutil.move(made, final)
            click.echo(f"{final}: {render.size(answer.bytes)}")


def _file_to_make(target: str) -> Path | None:
    """The file that a save is moved to; None for what is written into: standard output, a pipe, a device."""
    path = Path(target)
    if target == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
        return None
    if path.is_dir():
        raise WrongInput(f"{path} is a directory")
    final = path.resolve()
    if not final.parent.is_dir():
        raise WrongInput(f"{final.parent} is not a directory")
    return final


@contextlib.contextmanager
def _exchange(otherwise: Path) -> Iterator[Path]:
    """A directory for one archive, removed at the end, or by the next command if this one is killed."""
    with contextlib.ExitStack() as stack:
        if not os.access(EXCHANGE.parent, os.W_OK):
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=otherwise))
        else:
            EXCHANGE.mkdir(mode=0o700, exist_ok=True)
            with _locked(EXCHANGE, fcntl.LOCK_EX):
                for left in EXCHANGE.glob(f"{_PREFIX}*"):
                    with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        shutil.rmtree(left)
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=EXCHANGE))
                stack.enter_context(_locked(Path(directory), fcntl.LOCK_EX))
        yield Path(directory)


@contextlib.contextmanager
def _locked(directory: Path, how: int) -> Iterator[None]:
    """:raises OSError: when somebody else has the lock, and `how` does not wait."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)
