"""Kernel parameters: which namespace each belongs to, and writing them (sysctl(8), namespaces(7))."""

from __future__ import annotations

import re

from triptych_linux.namespaces import Namespace

ROOT = "/proc/sys"

_PART = re.compile(r"[A-Za-z0-9_@+-][A-Za-z0-9_@+.:-]*")
_IPC = frozenset(
    {
        "kernel/auto_msgmni",
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shm_rmid_forced",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
    }
)
# What "conf" and "neigh" hold besides directories named after interfaces.
_EVERY_INTERFACE = frozenset({"all", "default", "lo"})


def key(name: str) -> str:
    """The path below /proc/sys of a sysctl written with dots or slashes.

    As sysctl(8): the separator that comes first is the separator, the other one stands for itself, so that
    `net.ipv4.conf.eth0/100.forwarding` and `net/ipv4/conf/eth0.100/forwarding` are the same.

    :raises ValueError: when it is not a sysctl's name.
    """
    slash, dot = name.find("/"), name.find(".")
    if slash < 0 or 0 <= dot < slash:
        name = name.translate(str.maketrans("./", "/."))
    parts = name.split("/")
    if len(parts) < 2 or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"{name!r} is not the name of a sysctl")
    return "/".join(parts)


def namespace_of(path: str) -> Namespace | None:
    """The kind of namespace that has its own value of a sysctl; None when the whole host shares it.

    :param path: from `key`.
    """
    if path.startswith("net/"):
        return Namespace.NETWORK
    if path in _IPC or path.startswith("fs/mqueue/"):
        return Namespace.IPC
    if path == "kernel/domainname":
        return Namespace.UTS
    return None


def interface_of(path: str) -> str | None:
    """The interface that a sysctl is of, which must exist before it can be written; None for any other.

    :param path: from `key`.
    """
    parts = path.split("/")
    if len(parts) < 5 or parts[0] != "net" or parts[2] not in ("conf", "neigh"):
        return None
    return None if parts[3] in _EVERY_INTERFACE else parts[3]


def write(path: str, value: str) -> None:
    """Set a sysctl in the namespaces of the calling thread.

    :param path: from `key`.
    :raises OSError: ENOENT when there is none, EACCES when this namespace may not set it, EINVAL for a bad
        value.
    """
    with open(f"{ROOT}/{path}", "wb", buffering=0) as file:
        file.write(value.encode())
