"""The command `pants` of ./dev."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence

import click

from triptych_dev.node.shell import CHECKOUT_ROOT, run, uv
from triptych_dev.packaging.check import check_pex
from triptych_dev.packaging.pex import PROGRAMS
from triptych_dev.pants.environment import Pants, find

PROOF = (
    ("list", "::"),
    ("lint", "::"),
    ("check", "::"),
    ("test", "::"),
    ("package", "::"),
)
"""What `./dev pants prove` runs."""
CONSTRAINTS = CHECKOUT_ROOT / "3rdparty/python/constraints.txt"


@click.command(
    context_settings={"ignore_unknown_options": True}, short_help="Build, check and test with Pants."
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[prove|lock|PANTS ARGUMENTS]")
def pants(arguments: tuple[str, ...]) -> int:
    """Run Pants: ./dev pants test libs/oci::

    prove runs list, lint, check, test and package over everything, and tries the executables. lock makes
    the lock file anew from the versions of uv.lock. Everything else goes to Pants. Where no launcher of a
    current release is on the PATH, an older release runs with an overlay over pants.toml; it proves targets,
    dependencies and tests, and not pants.toml itself.
    """
    found = find()
    if found.overlay is not None:
        click.echo(f"./dev pants: {found.program} with {found.overlay}", err=True)
    if arguments == ("prove",):
        return _prove(found)
    if arguments == ("lock",):
        _write_constraints()
        return _call(found, ["generate-lockfiles", "--resolve=python-default"])
    return _call(found, arguments or ("--help",))


def _call(found: Pants, arguments: Sequence[str]) -> int:
    environment = {**os.environ, "NO_SCIE_WARNING": "1"}
    # The environment of ./dev is for Python 3.11 and its own packages.
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        environment.pop(name, None)
    if found.overlay is not None:
        environment["PANTS_CONFIG_FILES"] = str(found.overlay)
    return subprocess.run([str(found.program), *arguments], cwd=CHECKOUT_ROOT, env=environment).returncode


def _prove(found: Pants) -> int:
    for goal in PROOF:
        click.echo(f"pants {' '.join(goal)}")
        begun = time.monotonic()
        status = _call(found, goal)
        click.echo(f"pants {' '.join(goal)}: status {status}, {time.monotonic() - begun:.0f} s")
        if status:
            return status
    check_pex([CHECKOUT_ROOT / f"dist/{program}.pex" for program in PROGRAMS], click.echo)
    return 0


def _write_constraints() -> None:
    """The versions of uv.lock, so that both builds have the same."""
    export = [
        "export",
        "--frozen",
        "--all-packages",
        "--no-emit-workspace",
        "--no-hashes",
        "--no-annotate",
        "-q",
    ]
    text = run([uv(), *export], step="read uv.lock", cwd=CHECKOUT_ROOT)
    lines = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    CONSTRAINTS.write_text("# Made from uv.lock by ./dev pants lock.\n" + "\n".join(lines) + "\n")
