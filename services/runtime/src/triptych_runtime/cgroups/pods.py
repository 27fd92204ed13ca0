"""Pod cgroups: the kubelet makes and limits its own; for other clients we make one a pod."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath

from runtime.v1.api_pb2 import LinuxContainerResources

from triptych_runtime.cgroups import arithmetic
from triptych_runtime.cgroups.errors import CgroupFailed
from triptych_runtime.cgroups.handle import Cgroup, read, write
from triptych_runtime.cgroups.layout import Layout, Mode

_ATTEMPTS = 20


def pod_limits(
    resources: LinuxContainerResources | None, overhead: LinuxContainerResources | None
) -> LinuxContainerResources:
    """What a pod may use: the sum that its containers ask for, and its overhead on top.

    A limit that `resources` does not set stays unset: overhead alone is no limit.
    """
    total = LinuxContainerResources()
    if resources is not None:
        total.CopyFrom(resources)
    if overhead is None:
        return total
    if total.cpu_shares and overhead.cpu_shares:
        total.cpu_shares += overhead.cpu_shares
    if total.memory_limit_in_bytes > 0 and overhead.memory_limit_in_bytes > 0:
        total.memory_limit_in_bytes += overhead.memory_limit_in_bytes
        if total.memory_swap_limit_in_bytes > 0:
            total.memory_swap_limit_in_bytes += overhead.memory_limit_in_bytes
    if total.cpu_quota > 0 and overhead.cpu_quota > 0:
        period = total.cpu_period or arithmetic.DEFAULT_PERIOD
        extra = overhead.cpu_quota * period // (overhead.cpu_period or arithmetic.DEFAULT_PERIOD)
        total.cpu_quota += extra
    return total


def make(layout: Layout, path: str) -> Cgroup:
    """Make a cgroup and those above it in every hierarchy, ready for containers below. Idempotent.

    :raises CgroupFailed: when the kernel refuses; what was made is removed again.
    """
    cgroup = Cgroup.at(layout, path)
    made: list[str] = []
    try:
        for mount in layout.hierarchies:
            made += _make_again(os.fspath(mount), path, layout)
    except OSError as error:
        for directory in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        raise CgroupFailed(f"make cgroup {path}: {error.filename}: {error.strerror}") from error
    return cgroup


def _make_again(mount: str, path: str, layout: Layout) -> list[str]:
    """`_make_below`, again while other pods go: the last one takes the directory of all pods with it."""
    for _ in range(_ATTEMPTS):
        try:
            return _make_below(mount, path, layout)
        except OSError as error:
            # ENODEV: it went between being opened and being written to.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
    return _make_below(mount, path, layout)


def remove_above(layout: Layout, path: str) -> None:
    """Remove the cgroup above `path` where it is empty now."""
    for directory in Cgroup.at(layout, os.path.dirname(path)).directories:
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def _make_below(mount: str, path: str, layout: Layout) -> list[str]:
    made: list[str] = []
    directory = mount
    for part in path.strip("/").split("/"):
        if layout.mode is Mode.UNIFIED:
            enable_controllers(directory)
        directory = posixpath.join(directory, part)
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            continue
        made.append(directory)
        inherit_cpuset(layout, directory)
    if layout.mode is Mode.UNIFIED:
        enable_controllers(directory)
    return made


def inherit_cpuset(layout: Layout, directory: str) -> None:
    """Give a new v1 cpuset the CPUs and nodes of the one above: without it can hold no process."""
    mount = layout.v1.get("cpuset")
    if mount is None or not directory.startswith(f"{mount}/"):
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(directory, name).strip():
            write(directory, name, read(os.path.dirname(directory), name).strip() or b"\n")


def enable_controllers(directory: str) -> None:
    """Give the children of a v2 cgroup every controller that it has itself."""
    have = set(read(directory, "cgroup.controllers").split())
    missing = have - set(read(directory, "cgroup.subtree_control").split())
    for name in sorted(missing):
        # A controller may be refused (cpu with realtime processes); the others are still of use.
        with contextlib.suppress(OSError):
            write(directory, "cgroup.subtree_control", b"+" + name)
