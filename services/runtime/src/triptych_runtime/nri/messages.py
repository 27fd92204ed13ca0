"""Pods and containers as plugins are told of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nri.v1alpha1 import nri_pb2 as nri
from runtime.v1 import api_pb2

from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxRecord
from triptych_runtime.nri.limits import V1_CPU, V1_MEMORY, from_cri
from triptych_runtime.spec.launcher import unwrapped

Document = Mapping[str, Any]

_STATES = {
    ContainerPhase.CREATING: nri.CONTAINER_CREATED,
    ContainerPhase.CREATED: nri.CONTAINER_CREATED,
    ContainerPhase.STARTING: nri.CONTAINER_CREATED,
    ContainerPhase.RUNNING: nri.CONTAINER_RUNNING,
    ContainerPhase.EXITED: nri.CONTAINER_STOPPED,
    ContainerPhase.REMOVING: nri.CONTAINER_STOPPED,
}
_PROFILES = {
    api_pb2.SecurityProfile.RuntimeDefault: nri.SecurityProfile.RUNTIME_DEFAULT,
    api_pb2.SecurityProfile.Unconfined: nri.SecurityProfile.UNCONFINED,
    api_pb2.SecurityProfile.Localhost: nri.SecurityProfile.LOCALHOST,
}
# The OCI names of what both documents have, by field.
_CPU = {"shares": "shares", "quota": "quota", "period": "period", **V1_CPU}
_MEMORY = {"limit": "limit", "reservation": "reservation", "swap": "swap", **V1_MEMORY}


def pod_message(record: SandboxRecord) -> nri.PodSandbox:
    """A pod sandbox."""
    meta, linux = record.config.metadata, record.config.linux
    pod = nri.PodSandbox(
        id=record.id,
        name=meta.name,
        uid=meta.uid,
        namespace=meta.namespace,
        labels=record.config.labels,
        annotations=record.config.annotations,
        runtime_handler=record.handler,
        pid=record.init_pid,
        ips=record.ips,
    )
    pod.linux.cgroup_parent = record.cgroup_parent or linux.cgroup_parent
    for kind, path in record.namespaces.items():
        pod.linux.namespaces.add(type=_namespace_type(kind), path=path)
    if record.overhead is not None:
        pod.linux.pod_overhead.CopyFrom(from_cri(record.overhead))
    if record.resources is not None:
        pod.linux.pod_resources.CopyFrom(from_cri(record.resources))
    return pod


def container_message(record: ContainerRecord, document: Document | None) -> nri.Container:
    """A container.

    :param document: its OCI spec; None where it is gone, and with it what only the spec says.
    """
    config = record.config
    told = nri.Container(
        id=record.id,
        pod_sandbox_id=record.sandbox_id,
        name=record.name,
        state=_STATES[record.phase],
        labels=config.labels,
        annotations=config.annotations,
        pid=record.pid,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        status_reason=record.reason,
        status_message=record.message,
        user=nri.User(uid=record.user.uid, gid=record.user.gid, additional_gids=record.user.groups),
    )
    for device in config.CDI_devices:
        told.CDI_devices.add(name=device.name)
    told.linux.cgroups_path = record.cgroups_path
    security = config.linux.security_context
    if security.HasField("seccomp"):
        told.linux.seccomp_profile.profile_type = _PROFILES[security.seccomp.profile_type]
        told.linux.seccomp_profile.localhost_ref = security.seccomp.localhost_ref
    if document is None:
        if record.resources is not None:
            told.linux.resources.CopyFrom(from_cri(record.resources))
    else:
        _add_document(told, document)
    return told


def _add_document(told: nri.Container, document: Document) -> None:
    process, linux = document["process"], document["linux"]
    for key, value in document.get("annotations", {}).items():
        told.annotations[key] = _text(value)
    told.args.extend(map(_text, unwrapped(process["args"])))
    told.env.extend(map(_text, process.get("env", ())))
    for mount in document.get("mounts", ()):
        told.mounts.add(
            destination=_text(mount["destination"]),
            type=mount.get("type", ""),
            source=_text(mount.get("source", "")),
            options=map(_text, mount.get("options", ())),
        )
    for limit in process.get("rlimits", ()):
        told.rlimits.add(type=limit["type"], hard=limit["hard"], soft=limit["soft"])
    if "oomScoreAdj" in process:
        told.linux.oom_score_adj.value = process["oomScoreAdj"]
    for namespace in linux.get("namespaces", ()):
        told.linux.namespaces.add(type=namespace["type"], path=namespace.get("path", ""))
    told.linux.sysctl.update(linux.get("sysctl", {}))
    _add_devices(told.linux, linux.get("devices", ()))
    _add_resources(told.linux.resources, linux.get("resources", {}))


def _add_devices(told: nri.LinuxContainer, devices: Iterable[Document]) -> None:
    for device in devices:
        added = told.devices.add(
            path=_text(device["path"]),
            type=device["type"],
            major=device.get("major", 0),
            minor=device.get("minor", 0),
        )
        for theirs, ours in (("fileMode", "file_mode"), ("uid", "uid"), ("gid", "gid")):
            if theirs in device:
                getattr(added, ours).value = device[theirs]


def _add_resources(told: nri.LinuxResources, resources: Document) -> None:
    _add_numbers(told.cpu, resources.get("cpu", {}), _CPU)
    told.cpu.cpus = resources.get("cpu", {}).get("cpus", "")
    told.cpu.mems = resources.get("cpu", {}).get("mems", "")
    _add_numbers(told.memory, resources.get("memory", {}), _MEMORY)
    for limit in resources.get("hugepageLimits", ()):
        told.hugepage_limits.add(page_size=limit["pageSize"], limit=limit["limit"])
    told.unified.update(resources.get("unified", {}))
    if "pids" in resources:
        told.pids.limit = resources["pids"]["limit"]
    for rule in resources.get("devices", ()):
        added = told.devices.add(
            allow=rule["allow"], type=rule.get("type", ""), access=rule.get("access", "")
        )
        for name in ("major", "minor"):
            if rule.get(name) is not None:
                getattr(added, name).value = rule[name]


def _add_numbers(told: Any, section: Document, names: Mapping[str, str]) -> None:
    for ours, theirs in names.items():
        if theirs in section:
            getattr(told, ours).value = section[theirs]


def _namespace_type(kind: str) -> str:
    return {"net": "network"}.get(kind, kind)


def _text(value: str) -> str:
    """Without bytes that are no UTF-8, which protobuf's strings cannot carry."""
    return value.encode(errors="surrogateescape").decode(errors="replace")
