"""Device nodes and the device cgroup's rules."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument, NotFound

# Of /dev: made for each container by the OCI runtime, or mount points of other file systems.
_SKIPPED_DIRS: Final = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"))
_SKIPPED: Final = frozenset(("console",))
DENY_ALL: Final[dict[str, Any]] = {"allow": False, "access": "rwm"}
ALLOW_ALL: Final[dict[str, Any]] = {"allow": True, "access": "rwm"}


@dataclass(frozen=True, slots=True)
class Device:
    """A device node: `path` in the container, the rest as stat(2) tells. :ivar kind: "b", "c" or "p"."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int

    def node(self) -> dict[str, Any]:
        """An entry of `linux.devices`."""
        return {
            "path": self.path,
            "type": self.kind,
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        }

    def rule(self, access: str) -> dict[str, Any]:
        """An entry of `linux.resources.devices` that allows `access`."""
        return {
            "allow": True,
            "type": self.kind,
            "major": self.major,
            "minor": self.minor,
            "access": access,
        }


@dataclass(slots=True)
class Devices:
    """`linux.devices` and `linux.resources.devices` in the making."""

    nodes: list[dict[str, Any]]
    rules: list[dict[str, Any]]


def build(
    config: api_pb2.ContainerConfig, *, privileged: bool, host_devices: bool, ownership: bool
) -> Devices:
    """The devices of the request and, for a privileged container, all of the host.

    :param ownership: give the request's devices to run_as_user and run_as_group.
    :raises NotFound: when a host path does not exist.
    :raises InvalidArgument: when it is no device, or for bad permissions.
    """
    result = Devices([], [DENY_ALL])
    for wanted in config.devices:
        access = check_access(wanted.permissions, f"device {wanted.host_path}")
        for device in _requested(wanted):
            given = _owned(device, config.linux.security_context) if ownership else device
            result.nodes.append(given.node())
            result.rules.append(given.rule(access))
    if privileged:
        if host_devices:
            have = {node["path"] for node in result.nodes}
            result.nodes += [d.node() for d in host_nodes(Path("/dev")) if d.path not in have]
        result.rules = [ALLOW_ALL]
    return result


def validate(devices: Iterable[api_pb2.Device]) -> None:
    """:raises InvalidArgument: for a device without host path or with bad permissions."""
    for device in devices:
        if not device.host_path.startswith("/"):
            raise InvalidArgument(f"devices: host_path {device.host_path!r} is not an absolute path")
        if device.container_path and not device.container_path.startswith("/"):
            raise InvalidArgument(
                f"devices: container_path {device.container_path!r} is not an absolute path"
            )
        check_access(device.permissions, f"device {device.host_path}")


def check_access(access: str, what: str) -> str:
    """The cgroup permissions, checked: some of "r", "w", "m".

    :raises InvalidArgument: naming `what`.
    """
    if not access or set(access) - set("rwm") or len(set(access)) != len(access):
        raise InvalidArgument(f"{what}: permissions {access!r} are not some of r, w and m")
    return access


def host_nodes(directory: Path) -> Iterator[Device]:
    """Every device node below a directory of the host, with its host path."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED_DIRS:
                    yield from host_nodes(Path(entry.path))
            elif entry.name not in _SKIPPED:
                device = read_device(entry.path)
                if device is not None and device.kind != "p":
                    yield device


def read_device(path: str | os.PathLike[str]) -> Device | None:
    """The device node at a host path, or None when there is none (symlinks are not followed)."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    kinds = {stat.S_IFBLK: "b", stat.S_IFCHR: "c", stat.S_IFIFO: "p"}
    kind = kinds.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        return None
    return Device(
        path=os.fspath(path),
        kind=kind,
        major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev),
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
    )


def _requested(wanted: api_pb2.Device) -> Iterator[Device]:
    source = os.path.realpath(wanted.host_path)
    destination = wanted.container_path or wanted.host_path
    if not os.path.exists(source):
        raise NotFound(f"devices: host_path {wanted.host_path} does not exist")
    if os.path.isdir(source):
        for device in host_nodes(Path(source)):
            yield replace(device, path=destination + device.path.removeprefix(source))
        return
    node = read_device(source)
    if node is None:
        raise InvalidArgument(f"devices: host_path {wanted.host_path} is not a device")
    yield replace(node, path=destination)


def _owned(device: Device, context: api_pb2.LinuxContainerSecurityContext) -> Device:
    uid, gid = context.run_as_user.value, context.run_as_group.value
    return replace(device, uid=uid or device.uid, gid=gid or device.gid)
