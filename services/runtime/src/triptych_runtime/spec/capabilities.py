"""Linux capabilities of a container's process (capabilities(7))."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument

# In the order of include/uapi/linux/capability.h: the index is the bit.
KNOWN: Final = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
        "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG "
        "MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM "
        "BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)

# What containerd (and Docker) give a container that asks for nothing.
DEFAULT: Final = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)


def names_of_mask(mask: int) -> tuple[str, ...]:
    """The names of a hexadecimal set of /proc/PID/status; bits this table does not know are left out."""
    return tuple(name for bit, name in enumerate(KNOWN) if mask >> bit & 1)


def build(
    context: api_pb2.LinuxContainerSecurityContext, bounding: Sequence[str], *, user_namespace: bool = False
) -> dict[str, list[str]]:
    """The `process.capabilities` object.

    ALL is taken first, so that single names refine it: add ALL and drop CHOWN is all but CHOWN. ALL, as
    privileged, means the daemon's own bounding set. Ambient capabilities are also inheritable, which the
    kernel demands; without any, both sets stay empty.

    :param user_namespace: whether the container has one; then the bounding set starts full (user
        namespaces(7)), and a capability the daemon lacks can be added.
    :raises InvalidArgument: for a name that is no capability, or an ambient one that is not granted.
    :raises FailedPrecondition: for an added capability that the daemon itself does not have.
    """
    wanted = context.capabilities
    add = _names(wanted.add_capabilities, "add_capabilities")
    drop = _names(wanted.drop_capabilities, "drop_capabilities")
    if context.privileged:
        return _sets(list(bounding), _ambient(wanted, list(bounding)))
    granted = [name for name in DEFAULT if user_namespace or name in bounding]
    if "ALL" in add:
        granted = list(bounding)
    if "ALL" in drop:
        granted = []
    for name in add:
        if name == "ALL" or name in granted or name in drop:
            continue
        if name not in bounding and not user_namespace:
            raise FailedPrecondition(
                f"capabilities.add_capabilities: {name} is not in the runtime daemon's own bounding set"
            )
        granted.append(name)
    granted = [name for name in granted if name not in drop]
    return _sets(granted, _ambient(wanted, granted))


def validate(wanted: api_pb2.Capability) -> None:
    """Refuse names that are no capabilities.

    :raises InvalidArgument: naming the field and the value.
    """
    _names(wanted.add_capabilities, "add_capabilities")
    _names(wanted.drop_capabilities, "drop_capabilities")
    _names(wanted.add_ambient_capabilities, "add_ambient_capabilities")


def _sets(granted: list[str], ambient: list[str]) -> dict[str, list[str]]:
    sets = {"bounding": granted, "effective": list(granted), "permitted": list(granted)}
    if ambient:
        sets |= {"inheritable": list(ambient), "ambient": ambient}
    return sets


def _ambient(wanted: api_pb2.Capability, granted: list[str]) -> list[str]:
    names = _names(wanted.add_ambient_capabilities, "add_ambient_capabilities")
    if "ALL" in names:
        return list(granted)
    missing = [name for name in names if name not in granted]
    if missing:
        raise InvalidArgument(
            f"capabilities.add_ambient_capabilities: {missing[0]} is not among the container's capabilities",
            hint="add it to add_capabilities too",
        )
    return names


def _names(values: Iterable[str], field: str) -> list[str]:
    names: list[str] = []
    for value in values:
        name = value.upper()
        if name != "ALL":
            name = name if name.startswith("CAP_") else f"CAP_{name}"
            if name not in KNOWN:
                raise InvalidArgument(f"capabilities.{field}: {value!r} is no Linux capability")
        if name not in names:
            names.append(name)
    return names
