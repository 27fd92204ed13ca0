"""What an adjustment or update consists of: its parts, who is to own them, and how one is taken over.

An adjustment (ContainerAdjustment) has its parts under the same names as the container (Container) that it
is for, so that one table serves for what is merged and for what the next plugin is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message
from nri.v1alpha1 import nri_pb2
from nri.v1alpha1.nri_pb2 import Field

from triptych_runtime.nri.owners import Claim, mark, unmark


@dataclass(frozen=True, slots=True)
class Single:
    """A part of one value. :ivar path: its field's name below the message, with dots."""

    field: Field.ValueType
    path: str

    def cleared(self, change: Message) -> list[Claim]:
        """What `change` removes before it sets anything."""
        return []

    def claims(self, change: Message) -> list[Claim]:
        """What the plugin that sent `change` will own."""
        return [(self.field, None)] if _is_set(change, self.path) else []

    def take(self, change: Message, target: Message) -> None:
        """Put what `change` has in place of what `target` has."""
        if not _is_set(change, self.path):
            return
        holder, name = _holder(target, self.path)
        if name not in holder.DESCRIPTOR.fields_by_name:
            return  # a container is not told its memory policy
        value = _value(change, self.path)
        if isinstance(value, Message):
            getattr(holder, name).CopyFrom(value)
            getattr(holder, name).SetInParent()
        else:
            setattr(holder, name, value)


@dataclass(frozen=True, slots=True)
class Keyed:
    """A part of many entries, each with an owner of its own.

    :ivar key: the field of an entry that is its key; empty for a map.
    :ivar marks: whether "-" before a key removes the entry.
    :ivar clears: whether a removal makes room for a new owner; otherwise it is owned as a value is.
    """

    field: Field.ValueType
    path: str
    key: str = ""
    marks: bool = True
    clears: bool = True

    def cleared(self, change: Message) -> list[Claim]:
        """What `change` removes before it sets anything."""
        removed = self._removed(change) if self.clears else {}
        return [(self.field, name) for name in removed]

    def claims(self, change: Message) -> list[Claim]:
        """What the plugin that sent `change` will own."""
        names = [key for key, _ in self._added(change)]
        return [(self.field, name) for name in (*names, *(() if self.clears else self._removed(change)))]

    def take(self, change: Message, target: Message) -> None:
        """Put the entries of `change` in place of those with their keys in `target`.

        A removal is kept in an adjustment; a container just has the entry no more.
        """
        removed, added = self._removed(change), self._added(change)
        touched = {*removed, *(key for key, _ in added)}
        if not touched:
            return
        held = _value(target, self.path)
        self._drop(held, touched)
        if isinstance(target, nri_pb2.ContainerAdjustment):
            stays = touched - {key for key, _ in added}
            added = [*((mark(name), entry) for name, entry in removed.items() if name in stays), *added]
        for key, entry in added:
            self._put(held, key, entry)

    def _entries(self, change: Message) -> Iterator[tuple[str, Any]]:
        held = _value(change, self.path)
        return ((getattr(entry, self.key), entry) for entry in held) if self.key else iter(held.items())

    def _removed(self, change: Message) -> dict[str, Any]:
        if not self.marks:
            return {}
        entries = ((unmark(key), entry) for key, entry in self._entries(change))
        return {name: entry for (name, gone), entry in entries if gone}

    def _added(self, change: Message) -> list[tuple[str, Any]]:
        return [(key, entry) for key, entry in self._entries(change) if not (self.marks and unmark(key)[1])]

    def _drop(self, held: Any, names: Iterable[str]) -> None:
        keys = {*names, *map(mark, names)} if self.marks else set(names)
        if not self.key:
            for key in keys & set(held):
                del held[key]
            return
        kept = [entry for entry in held if self._key(entry) not in keys]
        del held[:]
        held.extend(kept)

    def _key(self, entry: Any) -> str:
        # The environment of a container is text, that of an adjustment pairs.
        key: str = entry.partition("=")[0] if isinstance(entry, str) else getattr(entry, self.key)
        return key

    def _put(self, held: Any, key: str, entry: Any) -> None:
        if self.key:
            held.append(entry if hasattr(held, "add") else f"{entry.key}={entry.value}")
        elif isinstance(entry, Message):
            held[key].CopyFrom(entry)
        else:
            held[key] = entry


#: Of ContainerAdjustment and Container; hooks, args and rdt.remove follow rules of their own (`merge`).
ADJUSTMENT: Final = (
    Keyed(Field.Annotations, "annotations"),
    Keyed(Field.Mounts, "mounts", "destination"),
    Keyed(Field.Env, "env", "key"),
    Keyed(Field.Rlimits, "rlimits", "type", marks=False),
    Keyed(Field.CdiDevices, "CDI_devices", "name", marks=False),
    Keyed(Field.Devices, "linux.devices", "path"),
    Single(Field.CgroupsPath, "linux.cgroups_path"),
    Single(Field.OomScoreAdj, "linux.oom_score_adj"),
    Single(Field.IoPriority, "linux.io_priority"),
    Single(Field.SeccompPolicy, "linux.seccomp_policy"),
    Keyed(Field.Namespace, "linux.namespaces", "type", clears=False),
    Keyed(Field.Sysctl, "linux.sysctl"),
    Keyed(Field.LinuxNetDevices, "linux.net_devices"),
    Single(Field.LinuxSched, "linux.scheduler"),
    Single(Field.RdtClosID, "linux.rdt.clos_id"),
    Single(Field.RdtSchemata, "linux.rdt.schemata"),
    Single(Field.RdtEnableMonitoring, "linux.rdt.enable_monitoring"),
    Single(Field.MemoryPolicy, "linux.memory_policy"),
)

#: Of LinuxResources, at creation and in updates; the rules for devices have no owners.
RESOURCES: Final = (
    Single(Field.MemLimit, "memory.limit"),
    Single(Field.MemReservation, "memory.reservation"),
    Single(Field.MemSwapLimit, "memory.swap"),
    Single(Field.MemKernelLimit, "memory.kernel"),
    Single(Field.MemTCPLimit, "memory.kernel_tcp"),
    Single(Field.MemSwappiness, "memory.swappiness"),
    Single(Field.MemDisableOomKiller, "memory.disable_oom_killer"),
    Single(Field.MemUseHierarchy, "memory.use_hierarchy"),
    Single(Field.CPUShares, "cpu.shares"),
    Single(Field.CPUQuota, "cpu.quota"),
    Single(Field.CPUPeriod, "cpu.period"),
    Single(Field.CPURealtimeRuntime, "cpu.realtime_runtime"),
    Single(Field.CPURealtimePeriod, "cpu.realtime_period"),
    Single(Field.CPUSetCPUs, "cpu.cpus"),
    Single(Field.CPUSetMems, "cpu.mems"),
    Keyed(Field.HugepageLimits, "hugepage_limits", "page_size", marks=False),
    Keyed(Field.CgroupsUnified, "unified", marks=False),
    Single(Field.BlockioClass, "blockio_class"),
    Single(Field.RdtClass, "rdt_class"),
    Single(Field.PidsLimit, "pids"),
)

RDT: Final[tuple[Claim, ...]] = (
    (Field.RdtClosID, None),
    (Field.RdtSchemata, None),
    (Field.RdtEnableMonitoring, None),
)


def _holder(message: Message, path: str) -> tuple[Message, str]:
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    return message, name


def _value(message: Message, path: str) -> Any:
    return getattr(*_holder(message, path))


def _is_set(message: Message, path: str) -> bool:
    holder, name = _holder(message, path)
    if holder.DESCRIPTOR.fields_by_name[name].message_type is not None:
        return holder.HasField(name)
    return bool(getattr(holder, name))
