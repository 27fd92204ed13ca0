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
from pathlib import Path

from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CliError
from triptych_cli.status.collect import daemon as look
from triptych_cli.status.collect import reloads

_DROP_IN = "99-trace.toml"
_LONGEST = 30.0
"""Seconds that all daemons together get to read their configuration again; a busy node takes some."""


@contextlib.contextmanager
def tracing(context: Context, endpoint: str, directory: Path) -> Iterator[None]:
    """All daemons that run export every span to `endpoint` within this context.

    :param directory: where the daemons' configuration is; /etc/triptych.
    :raises CliError: no daemon runs, or the files cannot be written.
    """
    pids = {name: look(context, name).pid for name in DaemonName}
    running = {name: pid for name, pid in pids.items() if pid}
    if not running:
        raise CliError("no daemon's process was found", hint="triptych status")
    written: list[Path] = []
    try:
        for name in running:
            path = directory / f"{name.value}.toml.d" / _DROP_IN
            written.append(path)
            _write(path, endpoint)
        _reload(context, running)
        yield
    finally:
        for path in written:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        _reload(context, running)


def _write(path: Path, endpoint: str) -> None:
    head = "# Written by `triptych trace`, which removes it.\n[telemetry]\n"
    text = f'{head}endpoint = "{endpoint}"\nsample_ratio = 1.0\n'
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}", hint="run as root: sudo triptych trace ...") from None


def _reload(context: Context, running: dict[DaemonName, int]) -> None:
    """Have all reload, and wait until they have; one that went away meanwhile is not waited for."""
    ends = time.monotonic() + _LONGEST
    before = {name: _reloads(context, name) for name in running}
    for pid in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
    for name, count in before.items():
        while count is not None and _reloads(context, name) == count and time.monotonic() < ends:
            time.sleep(0.05)


def _reloads(context: Context, name: DaemonName) -> int | None:
    try:
        return reloads(context, name)
    except CliError:
        return None
