"""Resources as NRI has them, and as the CRI does: every limit optional here, zero for "not set" there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.message import Message
from nri.v1alpha1 import nri_pb2
from runtime.v1.api_pb2 import HugepageLimit, LinuxContainerResources

from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.spec import CgroupVersion, HostFacts
from triptych_runtime.spec.resources import MAX_SHARES

_INT64_MAX: Final = (1 << 63) - 1
# Settings of cgroup v1 that v2 has nothing for: field, name in the OCI document.
V1_MEMORY: Final = {
    "kernel": "kernel",
    "kernel_tcp": "kernelTCP",
    "swappiness": "swappiness",
    "disable_oom_killer": "disableOOMKiller",
    "use_hierarchy": "useHierarchy",
}
V1_CPU: Final = {"realtime_runtime": "realtimeRuntime", "realtime_period": "realtimePeriod"}
# What v2 does whether or not it is asked.
_ALWAYS_ON_V2: Final = frozenset(("use_hierarchy",))


def from_cri(limits: LinuxContainerResources) -> nri_pb2.LinuxResources:
    """What plugins are told of a request of the kubelet."""
    made = nri_pb2.LinuxResources(
        hugepage_limits=[
            nri_pb2.HugepageLimit(page_size=page.page_size, limit=page.limit)
            for page in limits.hugepage_limits
        ],
        unified=dict(limits.unified),
    )
    for target, value in (
        (made.cpu.shares, limits.cpu_shares),
        (made.cpu.quota, limits.cpu_quota),
        (made.cpu.period, limits.cpu_period),
        (made.memory.limit, limits.memory_limit_in_bytes),
        (made.memory.swap, limits.memory_swap_limit_in_bytes),
    ):
        if value:
            target.value = value
    if limits.cpuset_cpus:
        made.cpu.cpus = limits.cpuset_cpus
    if limits.cpuset_mems:
        made.cpu.mems = limits.cpuset_mems
    return made


def to_cri(wanted: nri_pb2.LinuxResources) -> LinuxContainerResources:
    """What the CRI has fields for; values that they cannot hold are those that mean no limit."""
    cpu, memory = wanted.cpu, wanted.memory
    return LinuxContainerResources(
        cpu_shares=min(cpu.shares.value, MAX_SHARES),
        cpu_quota=cpu.quota.value,
        cpu_period=min(cpu.period.value, _INT64_MAX),
        cpuset_cpus=cpu.cpus,
        cpuset_mems=cpu.mems,
        memory_limit_in_bytes=memory.limit.value,
        memory_swap_limit_in_bytes=memory.swap.value,
        hugepage_limits=[
            HugepageLimit(page_size=page.page_size, limit=page.limit) for page in wanted.hugepage_limits
        ],
        unified=dict(wanted.unified),
    )


def as_update(wanted: nri_pb2.LinuxResources, host: HostFacts) -> LinuxContainerResources:
    """An update as the CRI would ask for it. What it has no field for is a file of cgroup v2.

    :raises AdjustmentRefused: naming the field that cannot be changed while a container runs.
    """
    check_classes(wanted)
    v1_only = {
        **of_v1(wanted.cpu, "cpu", V1_CPU, host),
        **of_v1(wanted.memory, "memory", V1_MEMORY, host),
    }
    if v1_only:
        raise AdjustmentRefused(f"linux.resources: {', '.join(v1_only)} can be set at creation only")
    limits = to_cri(wanted)
    if wanted.cpu.HasField("quota") and not wanted.cpu.quota.value:
        limits.cpu_quota = -1
    for field, (name, value) in _files(wanted).items():
        if host.cgroup_version is not CgroupVersion.V2:
            raise AdjustmentRefused(
                f"linux.resources.{field}: can be set at creation only without cgroup v2"
            )
        limits.unified[name] = value
    return limits


def of_v1(wanted: Message, part: str, names: Mapping[str, str], host: HostFacts) -> dict[str, Any]:
    """The settings of cgroup v1 that are set, by their names in the OCI document.

    :raises AdjustmentRefused: on a host that has them not, unless it is what it does anyway.
    """
    told: dict[str, Any] = {}
    for field, name in names.items():
        if not wanted.HasField(field):
            continue
        value = getattr(wanted, field).value
        if host.cgroup_version is not CgroupVersion.V2:
            told[name] = value
        elif field not in _ALWAYS_ON_V2 and (value > 0 or field == "swappiness"):
            raise AdjustmentRefused(f"linux.resources.{part}.{field}: cgroup v2 has no such setting")
    return told


def check_classes(wanted: nri_pb2.LinuxResources) -> None:
    """:raises AdjustmentRefused: for a class of a configuration that triptych has not."""
    for field in ("blockio_class", "rdt_class"):
        if name := getattr(wanted, field).value:
            raise AdjustmentRefused(f"linux.resources.{field}: no classes are configured, so not {name!r}")


def _files(wanted: nri_pb2.LinuxResources) -> dict[str, tuple[str, str]]:
    """Files of cgroup v2 by the field that sets them."""
    files = {}
    if wanted.memory.HasField("reservation"):
        files["memory.reservation"] = ("memory.low", str(max(wanted.memory.reservation.value, 0)))
    if wanted.HasField("pids"):
        files["pids"] = ("pids.max", str(wanted.pids.limit) if wanted.pids.limit >= 0 else "max")
    return files
