"""Running the programs that the steps need."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from triptych_dev.node.errors import CommandFailed, NotPossible

CHECKOUT_ROOT = Path(__file__).resolve().parents[5]
"""The checkout that this command runs from."""


def run(
    argv: Sequence[str | Path],
    *,
    step: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    deadline: float = 900.0,
    check: bool = True,
) -> str:
    """Run a program to its end and give its standard output.

    :param step: what it is for; begins the error.
    :param env: variables over the own environment.
    :raises CommandFailed: it failed, or was not done at the deadline.
    :raises NotPossible: it is not installed.
    """
    try:
        done = subprocess.run(
            [str(arg) for arg in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline,
        )
    except FileNotFoundError:
        raise NotPossible(f"{step}: {argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{step}: {argv[0]} was not done after {deadline:g} s") from None
    if check and done.returncode != 0:
        tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-15:])
        raise CommandFailed(f"{step}: {argv[0]} ended with status {done.returncode}:\n{tail}")
    return done.stdout


def uv() -> str:
    """The `uv` that `./dev` brought or that is on the PATH.

    :raises NotPossible: there is none.
    """
    for candidate in (CHECKOUT_ROOT / ".dev/bin/uv", CHECKOUT_ROOT / ".venv/bin/uv"):
        if candidate.exists():
            return str(candidate)
    found = shutil.which("uv")
    if found is None:
        raise NotPossible("uv is not installed", hint="run this through ./dev, which brings it")
    return found
