"""Where the demo plays: its directories, its daemons, and how a kept one is found again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triptych_dev.stack import Registry, Stack

NAME = "triptych-demo"
ROOT = Path("/var/lib") / NAME
SUBNET = "10.94.0.0/16"
CGROUP = f"/{NAME}"
"""Parent of the demo's pods in every hierarchy; the demo makes it, as a kubelet makes its own."""
_KEPT = Path("/run") / NAME / "kept.json"
_SECONDS = 20.0


def stack() -> Stack:
    """The three daemons of the demo, not started yet."""
    overrides: Mapping[str, Mapping[str, Any]] = {
        "streaming": {"http": {"listen": "127.0.0.1:0"}},
        "runtime": {"cgroup_driver": "cgroupfs"},
    }
    return Stack(ROOT, NAME, SUBNET, overrides)


def registry() -> Registry:
    """The demo's registry, not started yet."""
    return Registry(ROOT / "registry")


def logs() -> Path:
    return ROOT / "pods"


def keep(pids: list[int]) -> None:
    """Note the processes that go on when the demo ends."""
    _KEPT.write_text(json.dumps({pid: _started(pid) for pid in pids}))


def end_kept() -> bool:
    """End what an earlier `--keep` left; whether there was anything."""
    try:
        kept: dict[str, str] = json.loads(_KEPT.read_text())
    except FileNotFoundError:
        return False
    alive = [int(pid) for pid, started in kept.items() if started and _started(int(pid)) == started]
    for pid in alive:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _SECONDS
    while any(_started(pid) for pid in alive) and time.monotonic() < deadline:
        time.sleep(0.05)
    _KEPT.unlink()
    return True


def _started(pid: int) -> str:
    """When a process started, in clock ticks; empty when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def remove_cgroups() -> None:
    """Remove the demo's own cgroups; a kubelet does this for its pods."""
    for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        top = hierarchy / NAME
        if top.is_dir():
            for directory in sorted((d for d in top.glob("**/*") if d.is_dir()), reverse=True):
                directory.rmdir()
            top.rmdir()
