"""The cgroups that a stack's daemons made: ending what runs in them, and removing them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Set as AbstractSet
from pathlib import Path


def kill_group(directory: Path) -> None:
    """SIGKILL what is in a cgroup and below, and remove it."""
    for _ in range(100):
        procs = [int(pid) for file in directory.glob("**/cgroup.procs") for pid in file.read_text().split()]
        for pid in procs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not procs:
            break
        time.sleep(0.02)
    _remove_empty(directory)


def remove_cgroups(pods: AbstractSet[str]) -> None:
    """Remove the empty cgroups that daemons made for these pods, and then those above if nobody uses them.

    Other stacks may run on this node: what they made for their pods stays, in use or not yet.
    """
    for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        top = hierarchy / "triptych"
        for pod in top.iterdir() if top.is_dir() else ():
            if pod.name in pods:
                _remove_empty(pod)
        for above in (top, hierarchy / "triptych-monitors"):
            with contextlib.suppress(OSError):
                above.rmdir()


def _remove_empty(top: Path) -> None:
    """Remove a cgroup and those below it as far as they hold no process."""
    for directory, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
