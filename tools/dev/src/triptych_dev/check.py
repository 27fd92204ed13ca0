"""`./dev check`: everything that can be said of the code without running it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from triptych_dev import gen
from triptych_dev.errors import StepFailed
from triptych_dev.node.shell import CHECKOUT_ROOT


@dataclass(frozen=True, slots=True)
class Check:
    """One tool.

    :param run: gives None, or what is wrong.
    """

    name: str
    run: Callable[[], str | None]


def _tool(*argv: str) -> Callable[[], str | None]:
    def run() -> str | None:
        program = Path(sys.executable).with_name(argv[0])
        done = subprocess.run(
            [str(program), *argv[1:]], cwd=CHECKOUT_ROOT, capture_output=True, text=True, timeout=1200
        )
        return None if done.returncode == 0 else (done.stdout + done.stderr).strip()

    return run


def _stubs() -> str | None:
    found = gen.stale()
    return f"stale: {', '.join(found)}\nrun ./dev gen" if found else None


CHECKS = (
    Check("ruff", _tool("ruff", "check", ".")),
    Check("format", _tool("ruff", "format", "--check", ".")),
    Check("boundaries", _tool("lint-imports")),
    Check("stubs", _stubs),
    Check("types", _tool("mypy")),
)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([check.name for check in CHECKS]))
def check(names: tuple[str, ...]) -> None:
    """Lint, formatting, boundaries between services, fresh stubs, types; or those of NAMES."""
    failed = []
    for entry in CHECKS:
        if names and entry.name not in names:
            continue
        started = time.monotonic()
        problem = entry.run()
        seconds = time.monotonic() - started
        click.echo(f"{entry.name:12}{'ok' if problem is None else 'FAILED':8}{seconds:6.1f} s")
        if problem is not None:
            failed.append(entry.name)
            click.echo(problem, err=True)
    if failed:
        raise StepFailed(f"failed: {', '.join(failed)}")
