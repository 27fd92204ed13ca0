"""Resource limits: LinuxContainerResources to `linux.resources`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument

from triptych_runtime.spec.facts import CgroupVersion, HostFacts

# include/linux/sched.h and kernel/sched: what the kernel takes.
MIN_SHARES: Final = 2
MAX_SHARES: Final = 262144
_PERIOD: Final = range(1_000, 1_000_001)
_MIN_QUOTA: Final = 1_000
_OOM_SCORE: Final = range(-1000, 1001)
_CPU_LIST: Final = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_PAGE_SIZE: Final = re.compile(r"\d+[KMG]B")
_UNIFIED_KEY: Final = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+)+")


def build(resources: api_pb2.LinuxContainerResources, host: HostFacts) -> dict[str, Any]:
    """`linux.resources` without its devices. Zero and empty mean "not set", as the CRI says.

    With a memory limit and no swap limit, swap gets the same limit, so that the container does not swap;
    memory_swap_limit_in_bytes is memory plus swap.

    :raises InvalidArgument: for a value the kernel cannot take.
    :raises FailedPrecondition: for a limit whose controller this host does not have.
    """
    validate(resources, "resources")
    result: dict[str, Any] = {}
    if cpu := _cpu(resources):
        result["cpu"] = cpu
    if memory := _memory(resources, host):
        result["memory"] = memory
    if pages := _hugepages(resources, host):
        result["hugepageLimits"] = pages
    if resources.unified:
        if host.cgroup_version is not CgroupVersion.V2:
            raise FailedPrecondition(
                f"resources.unified: {sorted(resources.unified)[0]} needs cgroup v2, "
                f"but this host has cgroup {host.cgroup_version}"
            )
        result["unified"] = dict(resources.unified)
    return result


def overlay(held: dict[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    """`linux.resources` as they are, with what was built anew in its place, value by value."""
    result = dict(held)
    for part, values in built.items():
        if part == "hugepageLimits":
            pages = {page["pageSize"]: page for page in (*held.get(part, ()), *values)}
            result[part] = list(pages.values())
        else:
            result[part] = {**held.get(part, {}), **values}
    return result


def oom_score_adj(resources: api_pb2.LinuxContainerResources, host: HostFacts) -> int:
    """The score that a container's processes get: not below what the daemon is allowed to set."""
    wanted = int(resources.oom_score_adj)
    return wanted if host.may_lower_oom else max(wanted, host.oom_score_adj)


def validate(resources: api_pb2.LinuxContainerResources, field: str) -> None:
    """Refuse values that the kernel would refuse halfway through.

    :raises InvalidArgument: naming `field` and the part.
    """

    def no(part: str, why: str) -> InvalidArgument:
        return InvalidArgument(f"{field}.{part}: {why}")

    period, quota, shares = resources.cpu_period, resources.cpu_quota, resources.cpu_shares
    if period and period not in _PERIOD:
        raise no("cpu_period", f"{period} is not between 1000 and 1000000 microseconds")
    if quota > 0 and quota < _MIN_QUOTA:
        raise no("cpu_quota", f"{quota} is below {_MIN_QUOTA} microseconds")
    if shares < 0:
        raise no("cpu_shares", f"{shares} is negative")
    limit, swap = resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes
    if limit < -1:
        raise no("memory_limit_in_bytes", f"{limit} is negative")
    if swap < -1:
        raise no("memory_swap_limit_in_bytes", f"{swap} is negative")
    if swap > 0 and limit <= 0:
        raise no("memory_swap_limit_in_bytes", "is set without memory_limit_in_bytes")
    if 0 < swap < limit:
        raise no("memory_swap_limit_in_bytes", f"{swap} is below memory_limit_in_bytes {limit}")
    if resources.oom_score_adj not in _OOM_SCORE:
        raise no("oom_score_adj", f"{resources.oom_score_adj} is not between -1000 and 1000")
    for part in ("cpuset_cpus", "cpuset_mems"):
        value: str = getattr(resources, part)
        if value and _CPU_LIST.fullmatch(value) is None:
            raise no(part, f"{value!r} is no list such as 0-3,5")
    for page in resources.hugepage_limits:
        if _PAGE_SIZE.fullmatch(page.page_size) is None:
            raise no("hugepage_limits", f"{page.page_size!r} is no page size such as 2MB")
    for key in resources.unified:
        if _UNIFIED_KEY.fullmatch(key) is None:
            raise no("unified", f"{key!r} is no file of cgroup v2")


def _cpu(resources: api_pb2.LinuxContainerResources) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if resources.cpu_shares:
        cpu["shares"] = min(max(resources.cpu_shares, MIN_SHARES), MAX_SHARES)
    if resources.cpu_quota:
        cpu["quota"] = max(resources.cpu_quota, -1)
    if resources.cpu_period:
        cpu["period"] = resources.cpu_period
    if resources.cpuset_cpus:
        cpu["cpus"] = resources.cpuset_cpus
    if resources.cpuset_mems:
        cpu["mems"] = resources.cpuset_mems
    return cpu


def _memory(resources: api_pb2.LinuxContainerResources, host: HostFacts) -> dict[str, Any]:
    limit, swap = resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes
    memory: dict[str, Any] = {}
    if limit:
        memory["limit"] = limit
    if not host.swap_controller:
        if swap > limit > 0:
            raise FailedPrecondition(
                "resources.memory_swap_limit_in_bytes: this host accounts no swap (no swap controller)"
            )
        return memory
    if swap or limit:
        memory["swap"] = swap or limit
    return memory


def _hugepages(resources: api_pb2.LinuxContainerResources, host: HostFacts) -> list[dict[str, Any]]:
    limits: list[dict[str, Any]] = []
    for page in resources.hugepage_limits:
        there = host.hugepage_sizes is None or page.page_size in host.hugepage_sizes
        if host.hugetlb_controller and there:
            limits.append({"pageSize": page.page_size, "limit": page.limit})
        elif page.limit:  # the kubelet sends a zero for every size that it has heard of
            lack = f"huge pages of {page.page_size}" if host.hugetlb_controller else "hugetlb controller"
            raise FailedPrecondition(f"resources.hugepage_limits: this host has no {lack}")
    return limits
