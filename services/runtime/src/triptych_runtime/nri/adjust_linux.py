"""`linux` but for its resources: devices, namespaces, sysctls, seccomp and the like."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from typing import Any, Final

from nri.v1alpha1 import nri_pb2

from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.nri.adjusting import Adjusting, enum_name
from triptych_runtime.nri.owners import split, unmark
from triptych_runtime.spec import Document
from triptych_runtime.spec.newer_fields import NewerField

_NAMESPACES: Final = frozenset(("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"))
_DEVICES: Final = frozenset(("b", "c", "u", "p"))


def adjust(made: Adjusting, wanted: nri_pb2.LinuxContainerAdjustment) -> None:
    """All but resources, RDT, and what is of the process.

    :raises AdjustmentRefused: naming the field.
    """
    for device in wanted.devices:
        _device(made.linux, device)
    if wanted.cgroups_path:
        made.linux["cgroupsPath"] = wanted.cgroups_path
    if wanted.HasField("seccomp_policy"):
        _seccomp(made, wanted.seccomp_policy)
    for namespace in wanted.namespaces:
        _namespace(made.linux["namespaces"], namespace)
    _update(made.linux, "sysctl", *split(wanted.sysctl))
    _net_devices(made, wanted.net_devices)
    if wanted.HasField("memory_policy"):
        made.need(NewerField.MEMORY_POLICY)
        made.linux["memoryPolicy"] = _memory_policy(wanted.memory_policy)


def rdt(made: Adjusting, wanted: nri_pb2.LinuxRdt) -> None:
    """Resource director settings, on top of those that are there unless these are to be removed.

    :raises AdjustmentRefused: when the OCI runtime has none.
    """
    if wanted.remove:
        made.linux.pop("intelRdt", None)
    told: Document = {}
    if wanted.HasField("clos_id"):
        told["closID"] = wanted.clos_id.value
    if wanted.HasField("schemata"):
        made.need(NewerField.RDT_SCHEMATA)
        told["schemata"] = list(wanted.schemata.value)
    if wanted.HasField("enable_monitoring"):
        made.need(NewerField.RDT_MONITORING)
        told["enableMonitoring"] = wanted.enable_monitoring.value
    if told:
        made.need(NewerField.INTEL_RDT)
        made.linux["intelRdt"] = made.linux.get("intelRdt", {}) | told


def _device(linux: Document, wanted: nri_pb2.LinuxDevice) -> None:
    path, gone = unmark(wanted.path)
    _remove_device(linux, path)
    if gone:
        return
    if not path.startswith("/"):
        raise AdjustmentRefused(f"linux.devices: {path!r} is not an absolute path")
    if wanted.type not in _DEVICES:
        raise AdjustmentRefused(f"linux.devices: {path}: type {wanted.type!r} is not b, c, u or p")
    kind = "c" if wanted.type == "u" else wanted.type
    node: Document = {"path": path, "type": kind, "major": wanted.major, "minor": wanted.minor}
    if wanted.HasField("file_mode"):
        node["fileMode"] = stat.S_IMODE(wanted.file_mode.value)
    if wanted.HasField("uid"):
        node["uid"] = wanted.uid.value
    if wanted.HasField("gid"):
        node["gid"] = wanted.gid.value
    linux.setdefault("devices", []).append(node)
    if kind != "p":
        # What peers allow: a node of it may be made again for block devices only.
        access = "rwm" if kind == "b" else "rw"
        linux["resources"]["devices"].append(
            {"allow": True, **{key: node[key] for key in ("type", "major", "minor")}, "access": access}
        )


def _remove_device(linux: Document, path: str) -> None:
    """Take away a node, and what its cgroup rule allows unless another node is of the same device."""
    nodes: list[Document] = linux.get("devices", [])
    gone = [node for node in nodes if node["path"] == path]
    if not gone:
        return
    nodes[:] = [node for node in nodes if node["path"] != path]
    unused = {_numbers(node) for node in gone} - {_numbers(node) for node in nodes}
    rules = linux["resources"]["devices"]
    rules[:] = [rule for rule in rules if not (rule["allow"] and _numbers(rule) in unused)]


def _numbers(entry: Document) -> tuple[Any, ...]:
    return entry.get("type"), entry.get("major"), entry.get("minor")


def _namespace(entries: list[Document], wanted: nri_pb2.LinuxNamespace) -> None:
    kind, gone = unmark(wanted.type)
    if kind not in _NAMESPACES:
        raise AdjustmentRefused(f"linux.namespaces: {kind!r} is none of {', '.join(sorted(_NAMESPACES))}")
    entries[:] = [entry for entry in entries if entry["type"] != kind]
    if not gone:
        entries.append({"type": kind, "path": wanted.path} if wanted.path else {"type": kind})


def _net_devices(made: Adjusting, wanted: Mapping[str, nri_pb2.LinuxNetDevice]) -> None:
    removed, added = split(wanted)
    if added:
        made.need(NewerField.NET_DEVICES)
    named = {key: {"name": device.name} if device.name else {} for key, device in added.items()}
    _update(made.linux, "netDevices", removed, named)


def _update(linux: Document, part: str, removed: set[str], added: dict[str, Any]) -> None:
    """Change a map of the document, which is left out when it is empty."""
    held = {key: value for key, value in linux.pop(part, {}).items() if key not in removed} | added
    if held:
        linux[part] = held


def _memory_policy(wanted: nri_pb2.LinuxMemoryPolicy) -> Document:
    field = "linux.memory_policy"
    mode = enum_name(nri_pb2.MpolMode, wanted.mode, f"{field}.mode")
    policy: Document = {"mode": mode, "nodes": wanted.nodes}
    if wanted.flags:
        policy["flags"] = [enum_name(nri_pb2.MpolFlag, flag, f"{field}.flags") for flag in wanted.flags]
    return policy


def _seccomp(made: Adjusting, wanted: nri_pb2.LinuxSeccomp) -> None:
    if not (made.host.seccomp and made.handler.seccomp):
        whose = "the kernel" if not made.host.seccomp else made.handler.name
        raise AdjustmentRefused(f"linux.seccomp_policy: {whose} has no seccomp")
    if not wanted.default_action:
        raise AdjustmentRefused("linux.seccomp_policy: default_action is empty")
    policy: Document = {"defaultAction": wanted.default_action}
    if wanted.HasField("default_errno"):
        policy["defaultErrnoRet"] = wanted.default_errno.value
    told = {
        "architectures": list(wanted.architectures),
        "flags": list(wanted.flags),
        "listenerPath": wanted.listener_path,
        "listenerMetadata": wanted.listener_metadata,
        "syscalls": _syscalls(wanted.syscalls),
    }
    made.linux["seccomp"] = policy | {key: value for key, value in told.items() if value}


def _syscalls(wanted: Iterable[nri_pb2.LinuxSyscall]) -> list[Document]:
    rules: list[Document] = []
    for syscall in wanted:
        rule: Document = {"names": list(syscall.names), "action": syscall.action}
        if syscall.HasField("errno_ret"):
            rule["errnoRet"] = syscall.errno_ret.value
        if syscall.args:
            rule["args"] = [
                {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op}
                for arg in syscall.args
            ]
        rules.append(rule)
    return rules
