"""Namespaces and ID mappings of a container."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument

from triptych_runtime.spec.facts import CgroupVersion, HandlerFeatures, HostFacts
from triptych_runtime.spec.inputs import ContainerInputs, SandboxContext


def build(sandbox: SandboxContext, inputs: ContainerInputs, host: HostFacts) -> list[dict[str, str]]:
    """`linux.namespaces`: a mount namespace of its own, the pod's others by path.

    A type that is left out is the host's. A cgroup namespace hides the host's tree on cgroup v2, as peers
    do; not on v1, and not for privileged containers.

    :raises InvalidArgument: when the container asks for a namespace that its pod does not have.
    """
    entries: list[dict[str, str]] = [{"type": "mount"}]
    pod = sandbox.namespaces
    for kind, path in (("network", pod.network), ("ipc", pod.ipc), ("uts", pod.uts), ("user", pod.user)):
        if path is not None:
            entries.append({"type": kind, "path": str(path)})
    pid = _pid(sandbox, inputs)
    if pid is not None:
        entries.append(pid)
    if has_cgroup_namespace(inputs.security, host):
        entries.append({"type": "cgroup"})
    return entries


def has_cgroup_namespace(context: api_pb2.LinuxContainerSecurityContext, host: HostFacts) -> bool:
    """Whether the container gets a cgroup namespace of its own."""
    return host.cgroup_version is CgroupVersion.V2 and not context.privileged


def _pid(sandbox: SandboxContext, inputs: ContainerInputs) -> dict[str, str] | None:
    mode = inputs.security.namespace_options.pid
    pod = sandbox.security.namespace_options
    if mode == api_pb2.CONTAINER:
        return {"type": "pid"}
    if mode == api_pb2.TARGET:
        if inputs.target_pid_namespace is None:
            raise InvalidArgument("namespace_options.target_id: the target container is not running")
        return {"type": "pid", "path": str(inputs.target_pid_namespace)}
    validate_pid(pod, inputs.security.namespace_options)
    if pod.pid == api_pb2.NODE:
        return None
    if sandbox.namespaces.pid is None:
        raise FailedPrecondition(f"pod {sandbox.sandbox_id} has lost the init of its PID namespace")
    return {"type": "pid", "path": str(sandbox.namespaces.pid)}


def id_mappings(mappings: Iterable[api_pb2.IDMapping]) -> list[dict[str, int]]:
    """Mappings as the OCI document has them."""
    return [{"containerID": m.container_id, "hostID": m.host_id, "size": m.length} for m in mappings]


def user_mappings(sandbox: SandboxContext) -> dict[str, Any]:
    """`linux.uidMappings` and `linux.gidMappings` of a pod with a user namespace, else nothing."""
    user = sandbox.user_namespace
    if user is None:
        return {}
    return {"uidMappings": id_mappings(user.uids), "gidMappings": id_mappings(user.gids)}


def validate_options(options: api_pb2.NamespaceOption, field: str, *, is_pod: bool) -> None:
    """:raises InvalidArgument: for modes that the CRI does not define for their namespace."""
    for kind in ("network", "ipc"):
        mode: api_pb2.NamespaceMode.ValueType = getattr(options, kind)
        if mode not in (api_pb2.POD, api_pb2.NODE):
            raise InvalidArgument(f"{field}.{kind}: mode {_mode(mode)} is not POD or NODE")
    if options.pid not in api_pb2.NamespaceMode.values():
        raise InvalidArgument(f"{field}.pid: mode {int(options.pid)} is unknown")
    if options.pid == api_pb2.TARGET:
        if is_pod:
            raise InvalidArgument(f"{field}.pid: mode TARGET is for containers")
        if not options.target_id:
            raise InvalidArgument(f"{field}.target_id is empty, which PID mode TARGET needs")
    elif options.target_id:
        raise InvalidArgument(f"{field}.target_id is only for PID mode TARGET")
    if options.HasField("userns_options"):
        _validate_userns(options, field)


def validate_user_namespace_support(options: api_pb2.NamespaceOption, handler: HandlerFeatures) -> None:
    """:raises FailedPrecondition: when the pod wants a user namespace and the handler cannot."""
    wanted = options.HasField("userns_options") and options.userns_options.mode == api_pb2.POD
    if wanted and not handler.user_namespaces:
        raise FailedPrecondition(f"userns_options: runtime {handler.name} has no user namespaces")


def validate_pid(pod: api_pb2.NamespaceOption, container: api_pb2.NamespaceOption) -> None:
    """:raises InvalidArgument: when the container asks for PIDs that its pod does not have."""
    if container.pid == api_pb2.NODE and pod.pid != api_pb2.NODE:
        raise InvalidArgument("namespace_options.pid is NODE, but the pod does not use the host's PIDs")
    if container.pid == api_pb2.POD and pod.pid == api_pb2.CONTAINER:
        raise InvalidArgument("namespace_options.pid is POD, but the pod has no shared PID namespace")


def validate_of_host(pod: api_pb2.NamespaceOption, container: api_pb2.NamespaceOption) -> None:
    """:raises InvalidArgument: when the container asks for the host's network or IPC, and its pod does not.

    The other way round says nothing: POD is what the field is when it is not set.
    """
    for field in ("network", "ipc"):
        if getattr(container, field) == api_pb2.NODE != getattr(pod, field):
            raise InvalidArgument(f"namespace_options.{field} is NODE, but the pod has its own")


def validate_same_user_namespace(pod: api_pb2.NamespaceOption, container: api_pb2.NamespaceOption) -> None:
    """:raises InvalidArgument: when pod and container disagree about user namespaces."""
    if container.HasField("userns_options") and container.userns_options != pod.userns_options:
        raise InvalidArgument("namespace_options.userns_options differ from those of the pod")


def _validate_userns(options: api_pb2.NamespaceOption, field: str) -> None:
    user = options.userns_options
    count = len(user.uids), len(user.gids)
    if user.mode == api_pb2.NODE:
        if any(count):
            raise InvalidArgument(f"{field}.userns_options: mode NODE takes no mappings")
        return
    if user.mode != api_pb2.POD:
        raise InvalidArgument(f"{field}.userns_options: mode {_mode(user.mode)} is not POD or NODE")
    if not all(count):
        raise InvalidArgument(f"{field}.userns_options: mode POD needs uids and gids")
    for name, mappings in (("uids", user.uids), ("gids", user.gids)):
        validate_mappings(mappings, f"{field}.userns_options.{name}")
        if not any(m.container_id == 0 for m in mappings):
            raise InvalidArgument(f"{field}.userns_options.{name}: nothing is mapped to 0 in the container")
    for kind in ("pid", "ipc"):
        if getattr(options, kind) == api_pb2.NODE:
            raise InvalidArgument(f"{field}.{kind}: the host's cannot be used in a user namespace")


def validate_mappings(mappings: Iterable[api_pb2.IDMapping], field: str) -> None:
    """:raises InvalidArgument: for an empty, overflowing or overlapping mapping."""
    seen: list[api_pb2.IDMapping] = []
    for m in mappings:
        if not m.length:
            raise InvalidArgument(f"{field}: a mapping has length 0")
        if max(m.host_id, m.container_id) + m.length > 1 << 32:
            raise InvalidArgument(f"{field}: a mapping ends above 2^32")
        for other in seen:
            if _overlap(m.host_id, other.host_id, m, other) or _overlap(
                m.container_id, other.container_id, m, other
            ):
                raise InvalidArgument(f"{field}: mappings overlap")
        seen.append(m)


def _overlap(start: int, other_start: int, m: api_pb2.IDMapping, other: api_pb2.IDMapping) -> bool:
    return start < other_start + other.length and other_start < start + m.length


def _mode(mode: api_pb2.NamespaceMode.ValueType) -> str:
    return api_pb2.NamespaceMode.Name(mode) if mode in api_pb2.NamespaceMode.values() else str(int(mode))
