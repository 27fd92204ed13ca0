"""Kernel parameters of a pod (sysctl(8)); only those of its own namespaces."""

from __future__ import annotations

import re
from typing import Final

from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument

_NAME: Final = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_*-]+)+")
_IPC: Final = frozenset(
    (
        "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
        "kernel.shm_rmid_forced kernel.msg_next_id kernel.sem_next_id kernel.shm_next_id kernel.auto_msgmni"
    ).split()
)
_UTS: Final = frozenset(("kernel.domainname",))
_PORTS: Final = "net.ipv4.ip_unprivileged_port_start"
_PING: Final = "net.ipv4.ping_group_range"


def pod_sysctls(config: api_pb2.PodSandboxConfig) -> dict[str, str]:
    """The parameters to set in the pod's namespaces, names with dots.

    As containerd does, a pod with a network of its own may bind ports below 1024 and send pings without
    privileges, unless the request says otherwise.

    :raises InvalidArgument: for a name that belongs to no namespace of the pod.
    """
    options = config.linux.security_context.namespace_options
    values = {_dotted(name): value for name, value in config.linux.sysctls.items()}
    for name, value in values.items():
        _check(name, value, options)
    if options.network != api_pb2.NODE:
        values.setdefault(_PORTS, "0")
        in_userns = options.HasField("userns_options") and options.userns_options.mode == api_pb2.POD
        if not in_userns:
            values.setdefault(_PING, "0 2147483647")
    return values


def _check(name: str, value: str, options: api_pb2.NamespaceOption) -> None:
    if _NAME.fullmatch(name) is None or "\0" in value or "\n" in value:
        raise InvalidArgument(f"sysctls: {name!r} is no sysctl, or its value is not one line")
    if name.startswith("net."):
        if options.network == api_pb2.NODE:
            raise InvalidArgument(f"sysctls: {name} cannot be set, the pod uses the host's network")
    elif name in _IPC or name.startswith("fs.mqueue."):
        if options.ipc == api_pb2.NODE:
            raise InvalidArgument(f"sysctls: {name} cannot be set, the pod uses the host's IPC")
    elif name in _UTS:
        if options.network == api_pb2.NODE:
            raise InvalidArgument(f"sysctls: {name} cannot be set, the pod uses the host's name")
    else:
        raise InvalidArgument(f"sysctls: {name} belongs to no namespace of the pod")


def _dotted(name: str) -> str:
    """sysctl(8) takes a/b.c for interfaces with dots; the first separator decides."""
    match = re.search(r"[./]", name)
    if match is None or match[0] == ".":
        return name
    return name.translate(str.maketrans("./", "/."))
