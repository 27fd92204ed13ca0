"""The command itself."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triptych_cli.context import Context
from triptych_cli.errors import CliError, WrongInput
from triptych_cli.options import output_option, pass_context

if TYPE_CHECKING:
    from triptych_cli.bundle.gather import Piece


@click.command("support-bundle")
@click.option(
    "-f",
    "--file",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Archive to write; default: triptych-support-TIME.tar.gz here.",
)
@click.option("--since", default="6 hours ago", show_default=True, help="How far back logs go.")
@output_option
@pass_context
def support_bundle(context: Context, target: Path | None, since: str) -> None:
    """Collect versions, configuration, logs and state of this node into one archive of mode 0600.

    Passwords, tokens, keys, HTTP headers and the values of environment variables are replaced before
    anything is written; names of images, pods and hosts stay. Look through it before you send it.
    """
    from triptych_cli import render
    from triptych_cli.bundle.gather import pieces

    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = target or Path(f"triptych-support-{stamp}.tar.gz")
    if not path.absolute().parent.is_dir():
        raise WrongInput(f"{path.absolute().parent} is not a directory")
    try:
        told = _write(path, f"triptych-support-{stamp}", since, pieces(context, since))
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from None
    if context.json:
        render.as_json({"file": str(path.resolve()), "bytes": path.stat().st_size, "pieces": told})
    else:
        click.echo(f"{path}: {render.size(path.stat().st_size)}")


def _write(path: Path, folder: str, since: str, pieces: Iterable[Piece]) -> list[str]:
    """Write the archive and, when all is in it, give it its name; what became of each piece, a line each."""
    told: list[str] = []
    fresh = path.with_name(f".{path.name}.part")
    try:
        fresh.touch(mode=0o600)
        with tarfile.open(fresh, "w:gz") as archive:
            for piece in pieces:
                if piece.content:
                    _add(archive, f"{folder}/{piece.name}", piece.content)
                told.append(f"{piece.name}: {piece.problem or 'ok'}")
            head = f"made {time.strftime('%Y-%m-%dT%H:%M:%S%z')}, logs since {since}\n\n"
            _add(archive, f"{folder}/INDEX.txt", head + "\n".join(told) + "\n")
        fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)
    return told


def _add(archive: tarfile.TarFile, name: str, content: str) -> None:
    data = content.encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(data))
