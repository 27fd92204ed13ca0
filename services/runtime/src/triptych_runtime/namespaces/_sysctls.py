"""The sysctls of a pod: which it may have, its defaults, and writing them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass

from triptych_linux import credentials, sysctl
from triptych_linux.namespaces import Namespace

from triptych_runtime.namespaces.errors import SysctlRefused
from triptych_runtime.namespaces.model import NamespaceOptions
from triptych_runtime.namespaces.settings import NamespaceSettings

_PORT_START = "net/ipv4/ip_unprivileged_port_start"
_PING_RANGE = "net/ipv4/ping_group_range"
_HIGHEST_GROUP = 2147483647


@dataclass(frozen=True, slots=True)
class Sysctl:
    """One to be written.

    :param name: as the pod asked for it, for messages.
    :param path: below /proc/sys.
    :param kind: the namespace that it is of.
    :param late: it is of an interface that CNI makes, so it is written after the network is set up.
    """

    name: str
    path: str
    value: str
    kind: Namespace
    late: bool


def plan(options: NamespaceOptions, settings: NamespaceSettings) -> list[Sysctl]:
    """All sysctls of a pod, defaults first.

    :raises SysctlRefused: for one that is not of a namespace of the pod's own.
    """
    asked = [_check(name, value, options) for name, value in options.sysctls.items()]
    taken = {item.path for item in asked}
    return [item for item in _defaults(options, settings) if item.path not in taken] + asked


def _defaults(options: NamespaceOptions, settings: NamespaceSettings) -> Iterable[Sysctl]:
    if not options.network:
        return
    if settings.unprivileged_ports:
        yield Sysctl(_PORT_START, _PORT_START, "0", Namespace.NETWORK, late=False)
    # Groups that the user namespace does not map cannot be named there, hence as containerd: not with one.
    if settings.unprivileged_icmp and options.users is None:
        yield Sysctl(_PING_RANGE, _PING_RANGE, f"0 {_HIGHEST_GROUP}", Namespace.NETWORK, late=False)


def _check(name: str, value: str, options: NamespaceOptions) -> Sysctl:
    try:
        path = sysctl.key(name)
    except ValueError as error:
        raise SysctlRefused(str(error)) from None
    if path == "kernel/hostname":
        raise SysctlRefused(f"sysctl {name!r} conflicts with the pod's hostname")
    kind = sysctl.namespace_of(path)
    if kind is None:
        raise SysctlRefused(f"sysctl {name!r} is not namespaced: it would change the whole node")
    own = {Namespace.NETWORK: options.network, Namespace.IPC: options.ipc, Namespace.UTS: options.uts}[kind]
    if not own:
        raise SysctlRefused(f"sysctl {name!r} is not allowed: the pod uses the host's {kind.name} namespace")
    return Sysctl(name, path, value, kind, late=sysctl.interface_of(path) is not None)


def write(sysctls: Iterable[Sysctl], root: tuple[int, int] | None) -> None:
    """Write sysctls in the namespaces of the calling thread.

    :param root: host UID and GID of the root of the user namespace that owns them; IPC sysctls may only be
        written by it (ipc/ipc_sysctl.c, ipc_permissions).
    :raises SysctlRefused: when the kernel refuses one.
    """
    for item in sysctls:
        try:
            if root is not None and item.kind is Namespace.IPC:
                with credentials.effective_user(*root):
                    sysctl.write(item.path, item.value)
            else:
                sysctl.write(item.path, item.value)
        except OSError as error:
            raise SysctlRefused(_reason(item, error)) from error


def _reason(item: Sysctl, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"sysctl {item.name!r}: this kernel has none of that name in a pod"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"sysctl {item.name!r} cannot be set in a pod"
    return f"sysctl {item.name!r}: value {item.value!r}: {os.strerror(error.errno or 0)}"
