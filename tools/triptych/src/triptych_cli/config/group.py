"""The subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from triptych_cli import render
from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CliError
from triptych_cli.options import output_option, pass_context

_NAMES = click.Choice([name.value for name in DaemonName])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def config() -> None:
    """Configuration of the daemons: /etc/triptych/{image,runtime,streaming}.toml and their drop-ins."""


def _chosen(names: tuple[str, ...], file: Path | None) -> list[DaemonName]:
    if file is not None and len(names) != 1:
        raise click.UsageError("--config needs exactly one daemon")
    return [DaemonName(name) for name in names] or list(DaemonName)


@config.command(short_help="Check the files as the daemons would read them.")
@click.argument("daemons", nargs=-1, type=_NAMES)
@click.option("--config", "file", type=_FILE, help="Check this file instead; name its daemon.")
@output_option
@pass_context
def check(context: Context, daemons: tuple[str, ...], file: Path | None) -> int:
    """Check the files as the daemons would read them; every mistake with file, key and what was expected.

    Ends with status 1 when a daemon would refuse to start.
    """
    from triptych_cli.config.programs import ask

    results: list[dict[str, Any]] = []
    for daemon in _chosen(daemons, file):
        done = ask(daemon, "--check-config", file)
        said = (done.stdout if done.returncode == 0 else done.stderr).decode(errors="replace").strip()
        results.append({"daemon": daemon.value, "valid": done.returncode == 0, "said": said.splitlines()})
    if context.json:
        render.as_json(results)
    else:
        for result in results:
            for line in result["said"]:
                click.echo(line)
    return 0 if all(result["valid"] for result in results) else 1


@config.command(short_help="Every setting of DAEMON, and where it comes from.")
@click.argument("daemon", type=_NAMES)
@click.option("--config", "file", type=_FILE, help="Show this file's result instead.")
@output_option
@pass_context
def show(context: Context, daemon: str, file: Path | None) -> None:
    """Print every setting of DAEMON with its value and where that comes from."""
    from triptych_cli.config.programs import ask

    done = ask(DaemonName(daemon), "--print-config", file)
    if context.json and done.returncode == 0:
        import tomllib

        text = done.stdout.decode(errors="replace")
        render.as_json({"settings": tomllib.loads(text), "origins": _origins(text)})
    else:
        _print(done.returncode, done.stdout, done.stderr)


def _origins(text: str) -> dict[str, str]:
    """Each key and the files that set it, or `default`: what stands behind each line of `--print-config`."""
    found, table = {}, ""
    for line in text.splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif line:
            found[table + line.partition(" = ")[0]] = line.rpartition("  # ")[2]
    return found


@config.command(short_help="Every key with type, default and meaning, as Markdown.")
@click.argument("daemons", nargs=-1, type=_NAMES)
@pass_context
def reference(context: Context, daemons: tuple[str, ...]) -> None:
    """Print every key with its type, default and meaning, as Markdown."""
    from triptych_cli.config.programs import ask

    for daemon in _chosen(daemons, None):
        done = ask(daemon, "--config-reference")
        _print(done.returncode, done.stdout, done.stderr)


def _print(returncode: int, stdout: bytes, stderr: bytes) -> None:
    if returncode != 0:
        raise CliError(stderr.decode(errors="replace").strip(), hint="triptych config check")
    click.echo(stdout.decode(errors="replace").rstrip())
