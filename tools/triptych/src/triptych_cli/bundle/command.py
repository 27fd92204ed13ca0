"""The command itself."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import click

from triptych_cli.context import Context
from triptych_cli.options import output_option, pass_context


@click.command("support-bundle")
@click.option("-f", "--file", "target", type=click.Path(dir_okay=False, path_type=Path), help="Where to.")
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
    index = [f"made {time.strftime('%Y-%m-%dT%H:%M:%S%z')}, logs since {since}", ""]
    fresh = path.with_name(f".{path.name}.part")
    fresh.touch(mode=0o600)
    try:
        with tarfile.open(fresh, "w:gz") as archive:
            for piece in pieces(context, since):
                if piece.content:
                    _add(archive, f"triptych-support-{stamp}/{piece.name}", piece.content)
                index.append(f"{piece.name}: {piece.problem or 'ok'}")
            _add(archive, f"triptych-support-{stamp}/INDEX.txt", "\n".join(index) + "\n")
        fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)
    if context.json:
        render.as_json({"file": str(path.resolve()), "bytes": path.stat().st_size, "pieces": index[2:]})
    else:
        click.echo(f"{path}: {render.size(path.stat().st_size)}")


def _add(archive: tarfile.TarFile, name: str, content: str) -> None:
    data = content.encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(data))
