"""Ending a monitor that does not come to its end by itself."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from triptych_runtime.monitor.conmon import MonitorPaths


def kill_monitor(paths: MonitorPaths, container_id: str) -> None:
    """SIGKILL the monitor of a container and what it runs (the OCI runtime's create); none is no error.

    conmon leads a session of its own, and so a process group. It leaves its PID file last: where that is
    missing, it is looked for among all processes. Blocking; called from a thread.
    """
    try:
        known = int(paths.monitor_pid.read_text())
    except (OSError, ValueError):
        known = 0
    found = [known] if known and _monitors(known, container_id) else list(_search(container_id))
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _search(container_id: str) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and _monitors(int(entry.name), container_id):
            yield int(entry.name)


def _monitors(pid: int, container_id: str) -> bool:
    """Whether a process is the conmon of a container.

    The name is asked first: reading the arguments of a process can hang with the process.
    """
    directory = Path("/proc", str(pid))
    try:
        if (directory / "comm").read_bytes().strip() != b"conmon":
            return False
        return container_id.encode() in (directory / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
