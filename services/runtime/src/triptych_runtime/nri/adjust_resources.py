"""`linux.resources`: by the rules for those of the CRI, and what only plugins can ask for."""

from __future__ import annotations

from nri.v1alpha1 import nri_pb2
from runtime.v1 import api_pb2

from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.nri.adjusting import Adjusting
from triptych_runtime.nri.limits import V1_CPU, V1_MEMORY, check_classes, of_v1, to_cri
from triptych_runtime.spec import Document, build_resources
from triptych_runtime.spec.devices import check_access
from triptych_runtime.spec.resources import overlay


def adjust(made: Adjusting, wanted: nri_pb2.LinuxResources) -> None:
    """Resources of the document, each replaced by the one that is wanted.

    As with the kubelet's: a memory limit without a swap limit leaves no swap. A quota, period or shares of 0
    are none.

    :raises InvalidArgument: for a value that the kernel cannot take.
    :raises FailedPrecondition: for what this host or this daemon has not.
    """
    held: Document = made.linux["resources"]
    _classes(made, wanted)
    built = build_resources(_limits(wanted, held), made.host)
    cpu, memory = built.setdefault("cpu", {}), built.setdefault("memory", {})
    cpu |= of_v1(wanted.cpu, "cpu", V1_CPU, made.host)
    memory |= of_v1(wanted.memory, "memory", V1_MEMORY, made.host)
    if wanted.memory.reservation.value:
        memory["reservation"] = wanted.memory.reservation.value
    held = overlay(held, {part: values for part, values in built.items() if values})
    for name in ("shares", "quota", "period"):
        if wanted.cpu.HasField(name) and not getattr(wanted.cpu, name).value:
            held.get("cpu", {}).pop(name, None)
    if wanted.HasField("pids"):
        held.pop("pids", None)
        if wanted.pids.limit >= 0:
            held["pids"] = {"limit": wanted.pids.limit}
    held["devices"] = [*held["devices"], *(_rule(rule) for rule in wanted.devices)]
    made.linux["resources"] = held


def _limits(wanted: nri_pb2.LinuxResources, held: Document) -> api_pb2.LinuxContainerResources:
    """What the CRI has fields for; a swap limit, which depends on that of memory, with the one there is."""
    limits = to_cri(wanted)
    if limits.memory_swap_limit_in_bytes and not limits.memory_limit_in_bytes:
        limits.memory_limit_in_bytes = held.get("memory", {}).get("limit", 0)
    return limits


def _classes(made: Adjusting, wanted: nri_pb2.LinuxResources) -> None:
    """No class is what a container has; one that a CDI device put it in is taken away."""
    check_classes(wanted)
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
