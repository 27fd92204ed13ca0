"""`linux.resources`: by the rules for those of the CRI, and what only plugins can ask for."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import Message
from nri.v1alpha1 import nri_pb2
from runtime.v1 import api_pb2

from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.nri.adjusting import Adjusting
from triptych_runtime.spec import CgroupVersion, Document, build_resources
from triptych_runtime.spec.devices import check_access
from triptych_runtime.spec.resources import MAX_SHARES

_INT64_MAX: Final = (1 << 63) - 1
# Settings of cgroup v1 that v2 has nothing for: field, name in the document.
_V1_MEMORY: Final = {
    "kernel": "kernel",
    "kernel_tcp": "kernelTCP",
    "swappiness": "swappiness",
    "disable_oom_killer": "disableOOMKiller",
    "use_hierarchy": "useHierarchy",
}
_V1_CPU: Final = {"realtime_runtime": "realtimeRuntime", "realtime_period": "realtimePeriod"}
# What v2 does whether or not it is asked.
_ALWAYS_ON_V2: Final = frozenset(("use_hierarchy",))


def adjust(made: Adjusting, wanted: nri_pb2.LinuxResources) -> None:
    """Resources of the document, each replaced by the one that is wanted.

    As with the kubelet's: a memory limit without a swap limit leaves no swap, and a quota or shares of 0 are
    none.

    :raises InvalidArgument: for a value that the kernel cannot take.
    :raises FailedPrecondition: for what this host or this daemon has not.
    """
    held: Document = made.linux["resources"]
    built = build_resources(_limits(wanted, held), made.host)
    _classes(made, wanted)
    _replace(held, "cpu", built.get("cpu", {}) | _of_v1(made, wanted.cpu, "cpu", _V1_CPU))
    for name in ("shares", "quota", "period"):
        if wanted.cpu.HasField(name) and not getattr(wanted.cpu, name).value:
            held.get("cpu", {}).pop(name, None)
    memory = built.get("memory", {}) | _of_v1(made, wanted.memory, "memory", _V1_MEMORY)
    if wanted.memory.reservation.value:
        memory["reservation"] = wanted.memory.reservation.value
    _replace(held, "memory", memory)
    _replace(held, "unified", built.get("unified", {}))
    pages = {
        page["pageSize"]: page
        for page in (*held.get("hugepageLimits", ()), *built.get("hugepageLimits", ()))
    }
    if pages:
        held["hugepageLimits"] = list(pages.values())
    if wanted.HasField("pids"):
        held.pop("pids", None)
        if wanted.pids.limit >= 0:
            held["pids"] = {"limit": wanted.pids.limit}
    held["devices"] += [_rule(rule) for rule in wanted.devices]


def _limits(wanted: nri_pb2.LinuxResources, held: Document) -> api_pb2.LinuxContainerResources:
    """What the CRI has fields for; memory and swap, which depend on one another, with what is there."""
    cpu, memory = wanted.cpu, wanted.memory
    limits = api_pb2.LinuxContainerResources(
        cpu_shares=min(cpu.shares.value, MAX_SHARES),
        cpu_quota=cpu.quota.value,
        cpu_period=min(cpu.period.value, _INT64_MAX),
        cpuset_cpus=cpu.cpus,
        cpuset_mems=cpu.mems,
        memory_limit_in_bytes=memory.limit.value,
        memory_swap_limit_in_bytes=memory.swap.value,
        hugepage_limits=[
            api_pb2.HugepageLimit(page_size=page.page_size, limit=page.limit)
            for page in wanted.hugepage_limits
        ],
        unified=dict(wanted.unified),
    )
    if memory.swap.value and not memory.limit.value:
        limits.memory_limit_in_bytes = held.get("memory", {}).get("limit", 0)
    return limits


def _replace(held: Document, part: str, values: Document) -> None:
    if values:
        held[part] = held.get(part, {}) | values


def _of_v1(made: Adjusting, wanted: Message, part: str, names: dict[str, str]) -> dict[str, Any]:
    """The settings that are set, where the host's cgroups have them.

    :raises AdjustmentRefused: where they have not, unless it is what they do anyway.
    """
    told: dict[str, Any] = {}
    for field, name in names.items():
        if not wanted.HasField(field):
            continue
        value = getattr(wanted, field).value
        if made.host.cgroup_version is not CgroupVersion.V2:
            told[name] = value
        elif field not in _ALWAYS_ON_V2 and (value or field == "swappiness"):
            raise AdjustmentRefused(f"linux.resources.{part}.{field}: cgroup v2 has no such setting")
    return told


def _classes(made: Adjusting, wanted: nri_pb2.LinuxResources) -> None:
    """Classes of a configuration that triptych has not; no class is what every container has."""
    for field in ("blockio_class", "rdt_class"):
        if name := getattr(wanted, field).value:
            raise AdjustmentRefused(f"linux.resources.{field}: no classes are configured, so not {name!r}")
    if wanted.HasField("blockio_class"):
        made.linux["resources"].pop("blockIO", None)
    if wanted.HasField("rdt_class"):
        made.linux.pop("intelRdt", None)


def _rule(rule: nri_pb2.LinuxDeviceCgroup) -> Document:
    if rule.type not in ("", "a", "b", "c"):
        raise AdjustmentRefused(f"linux.resources.devices: type {rule.type!r} is not a, b or c")
    made: Document = {
        "allow": rule.allow,
        "access": check_access(rule.access or "rwm", "linux.resources.devices"),
    }
    if rule.type:
        made["type"] = rule.type
    for field in ("major", "minor"):
        if rule.HasField(field):
            made[field] = getattr(rule, field).value
    return made
