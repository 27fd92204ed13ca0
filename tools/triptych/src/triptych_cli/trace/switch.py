"""Turning tracing on in the running daemons for one request, and back to what it was.

A drop-in names our collector; SIGHUP makes each daemon read it, and once more when it is gone, which also
makes them send what they still hold.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CliError
from triptych_cli.instances import instances
from triptych_cli.status.collect import daemon as look
from triptych_cli.status.collect import reloads

_DROP_IN = "~trace.toml"
"""The last in the order of names, in which later drop-ins win, whatever others are called."""
_LONGEST = 30.0
"""Seconds that all daemons together get to read their configuration again; a busy node takes some."""


@dataclass(frozen=True, slots=True)
class _Running:
    """One process of a daemon.

    :param context: with the address of just this one.
    """

    name: DaemonName
    context: Context
    pid: int


@contextlib.contextmanager
def tracing(context: Context, endpoint: str, directory: Path) -> Iterator[None]:
    """All daemons that run export every span to `endpoint` within this context.

    :param directory: where the daemons' configuration is; /etc/triptych.
    :raises CliError: no daemon runs, or the files cannot be written.
    """
    running = [
        _Running(name, each, pid)
        for name in DaemonName
        for each in instances(context, name)
        if (pid := look(each, name).pid)
    ]
    if not running:
        raise CliError("no daemon's process was found", hint="triptych status")
    with contextlib.ExitStack() as undo:
        undo.callback(_reload, running)
        for name in sorted({each.name.value for each in running}):
            _write(directory / f"{name}.toml.d" / _DROP_IN, endpoint, undo)
        _reload(running)
        yield


def _write(path: Path, endpoint: str, undo: contextlib.ExitStack) -> None:
    head = "# Written by `triptych trace`, which removes it.\n[telemetry]\n"
    text = f'{head}endpoint = "{endpoint}"\nsample_ratio = 1.0\n'
    try:
        for missing in reversed([parent for parent in path.parents if not parent.exists()]):
            missing.mkdir(mode=0o755)
            undo.callback(_rmdir, missing)
        undo.callback(path.unlink, missing_ok=True)
        path.write_text(text)
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}", hint="run as root: sudo triptych trace ...") from None


def _rmdir(made: Path) -> None:
    """Remove a directory that was made here, unless somebody has put something there meanwhile."""
    with contextlib.suppress(OSError):
        made.rmdir()


def _reload(running: list[_Running]) -> None:
    """Have all reload, and wait until they have; one that went away meanwhile is not waited for."""
    ends = time.monotonic() + _LONGEST
    before = [(each, _reloads(each)) for each in running]
    for each in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGHUP)
    for each, count in before:
        while count is not None and _reloads(each) == count and time.monotonic() < ends:
            time.sleep(0.05)


def _reloads(running: _Running) -> int | None:
    try:
        return reloads(running.context, running.name)
    except CliError:
        return None
