"""Cgroups of pods, made by the benchmark as the kubelet makes them before it asks for a sandbox."""

from __future__ import annotations

import contextlib
from pathlib import Path

_TOP = "triptych-bench"


def parent(pod: str) -> str:
    """Make a pod's cgroup in every hierarchy; gives its path as the CRI's `cgroup_parent`."""
    for hierarchy in _hierarchies():
        top = hierarchy / _TOP
        for directory in (top, top / pod):
            if not directory.exists():
                _allow(directory.parent)
                directory.mkdir()
                _fill_cpuset(directory)
        _allow(top / pod)
    return f"/{_TOP}/{pod}"


def remove_all() -> None:
    """Remove every cgroup that `parent` made; what is still in use stays."""
    for hierarchy in _hierarchies():
        top = hierarchy / _TOP
        for directory in [*sorted((d for d in top.glob("**/*") if d.is_dir()), reverse=True), top]:
            with contextlib.suppress(OSError):
                directory.rmdir()


def _hierarchies() -> list[Path]:
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            found.append(Path(target))
    return found


def _allow(directory: Path) -> None:
    """cgroup v2: hand all controllers on to the children."""
    control = directory / "cgroup.subtree_control"
    if control.exists():
        for name in (directory / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                control.write_text(f"+{name}")


def _fill_cpuset(directory: Path) -> None:
    """cgroup v1: a new cpuset is empty, and nothing can run in it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = directory / name
        if (
            file.exists()
            and not file.read_text().strip()
            and not (directory / "cgroup.controllers").exists()
        ):
            file.write_text((directory.parent / name).read_text())
