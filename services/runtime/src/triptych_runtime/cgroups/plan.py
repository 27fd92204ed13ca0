"""Which control files a LinuxContainerResources sets, for each layout. No file is written here.

A number that is 0 and a text that is empty is one the client leaves alone, as everywhere in the CRI.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from runtime.v1.api_pb2 import LinuxContainerResources

from triptych_runtime.cgroups import arithmetic
from triptych_runtime.cgroups.errors import BadResources, MissingController
from triptych_runtime.cgroups.handle import Cgroup, read
from triptych_runtime.cgroups.layout import Mode

_PAGE_SIZE = re.compile(r"[0-9]+[KMG]B\Z")
_UNIFIED_KEY = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+\Z")


@dataclass(frozen=True, slots=True)
class Write:
    """One control file and its new content."""

    directory: str
    name: str
    value: bytes


def plan(cgroup: Cgroup, resources: LinuxContainerResources) -> list[Write]:
    """The writes that set `resources` (but its oom_score_adj, which is no cgroup matter).

    :raises BadResources: for a value that no node can take; the message names the field.
    :raises MissingController: for a field that this node has no means for.
    """
    if resources.cpu_period < 0 or resources.cpu_shares < 0:
        raise BadResources("cpu_period and cpu_shares must not be negative")
    if cgroup.mode is Mode.UNIFIED:
        writes = _plan_v2(cgroup, resources)
    else:
        writes = _plan_v1(cgroup, resources)
    return writes + _plan_hugetlb(cgroup, resources)


def _directory(cgroup: Cgroup, controller: str, field: str) -> str:
    directory = cgroup.directory(controller)
    if directory is None:
        raise MissingController(f"{field}: this node has no {controller} cgroup controller")
    return directory


def _plan_cpuset(cgroup: Cgroup, resources: LinuxContainerResources) -> list[Write]:
    writes: list[Write] = []
    for field, value in (("cpuset_cpus", resources.cpuset_cpus), ("cpuset_mems", resources.cpuset_mems)):
        if value:
            name = field.replace("_", ".")
            writes.append(Write(_directory(cgroup, "cpuset", field), name, value.encode()))
    return writes


def _plan_v1(cgroup: Cgroup, resources: LinuxContainerResources) -> list[Write]:
    writes: list[Write] = []
    for field, name, value in (
        ("cpu_shares", "cpu.shares", resources.cpu_shares),
        ("cpu_period", "cpu.cfs_period_us", resources.cpu_period),
        ("cpu_quota", "cpu.cfs_quota_us", resources.cpu_quota),
    ):
        if value:
            writes.append(Write(_directory(cgroup, "cpu", field), name, b"%d" % value))
    writes += _plan_cpuset(cgroup, resources)
    memory, both = resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes
    if memory:
        directory = _directory(cgroup, "memory", "memory_limit_in_bytes")
        writes.append(Write(directory, "memory.limit_in_bytes", b"%d" % memory))
    if memory or both:
        directory = _directory(cgroup, "memory", "memory_swap_limit_in_bytes")
        if both > 0 and 0 < both < memory:
            arithmetic.swap_max(memory, both)
        if os.path.exists(f"{directory}/memory.memsw.limit_in_bytes"):
            # Without a word about swap a container gets none, as with containerd and CRI-O.
            writes.append(Write(directory, "memory.memsw.limit_in_bytes", b"%d" % (both or memory)))
        elif both and both != memory:
            raise MissingController("memory_swap_limit_in_bytes: this kernel does not account swap")
    if resources.unified:
        names = sorted(resources.unified)
        raise MissingController(f"unified: {names} need cgroup v2, this node has cgroup v1")
    return writes


def _plan_v2(cgroup: Cgroup, resources: LinuxContainerResources) -> list[Write]:
    directory = _directory(cgroup, "cpu", "cgroup")
    writes: list[Write] = []
    if resources.cpu_shares:
        weight = arithmetic.weight_from_shares(resources.cpu_shares)
        writes.append(Write(directory, "cpu.weight", b"%d" % weight))
    if resources.cpu_quota or resources.cpu_period:
        writes.append(Write(directory, "cpu.max", _cpu_max(directory, resources)))
    writes += _plan_cpuset(cgroup, resources)
    memory, both = resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes
    if memory:
        writes.append(Write(directory, "memory.max", arithmetic.limit_text(memory)))
    if memory or both:
        limit = memory or _current_limit(directory)
        swap = arithmetic.swap_max(limit, both or limit) if (both or limit > 0) else arithmetic.UNLIMITED
        if os.path.exists(f"{directory}/memory.swap.max"):
            writes.append(Write(directory, "memory.swap.max", arithmetic.limit_text(swap)))
        elif swap > 0:
            raise MissingController("memory_swap_limit_in_bytes: this kernel does not account swap")
    for key, value in resources.unified.items():
        if not _UNIFIED_KEY.match(key) or key.startswith("cgroup."):
            raise BadResources(f"unified: {key!r} is not the name of a resource file")
        if not os.path.exists(f"{directory}/{key}"):
            raise MissingController(f"unified: the kernel has no {key} in cgroup {cgroup.path}")
        # A file such as io.max takes one device a write.
        writes += [Write(directory, key, line.encode()) for line in value.splitlines() or [""]]
    return writes


def _cpu_max(directory: str, resources: LinuxContainerResources) -> bytes:
    quota, period = _current_cpu_max(directory)
    if resources.cpu_quota:
        quota = arithmetic.limit_text(resources.cpu_quota)
    return b"%s %d" % (quota, resources.cpu_period or period)


def _current_cpu_max(directory: str) -> tuple[bytes, int]:
    try:
        quota, period = read(directory, "cpu.max").split()
    except FileNotFoundError:
        return b"max", arithmetic.DEFAULT_PERIOD
    return quota, int(period)


def _current_limit(directory: str) -> int:
    text = read(directory, "memory.max").strip()
    return arithmetic.UNLIMITED if text == b"max" else int(text)


def _plan_hugetlb(cgroup: Cgroup, resources: LinuxContainerResources) -> list[Write]:
    writes: list[Write] = []
    for item in resources.hugepage_limits:
        if not _PAGE_SIZE.match(item.page_size):
            raise BadResources(f"hugepage_limits: {item.page_size!r} is not a page size such as 2MB")
        directory = cgroup.directory("hugetlb")
        stem = f"hugetlb.{item.page_size}"
        v2 = cgroup.mode is Mode.UNIFIED
        name = f"{stem}.max" if v2 else f"{stem}.limit_in_bytes"
        if directory is None or not os.path.exists(f"{directory}/{name}"):
            # The kubelet sends a limit of 0 for each size it has heard of.
            if item.limit:
                raise MissingController(f"hugepage_limits: this node has no huge pages of {item.page_size}")
            continue
        value = b"%d" % item.limit
        writes.append(Write(directory, name, value))
        reserved = f"{stem}.rsvd.max" if v2 else f"{stem}.rsvd.limit_in_bytes"
        if os.path.exists(f"{directory}/{reserved}"):
            writes.append(Write(directory, reserved, value))
    return writes
