"""CDI: devices described by files (tags.cncf.io/container-device-interface, SPEC.md).

A spec file in /etc/cdi or /var/run/cdi, JSON or YAML, names devices of one kind and what a container that
gets one needs. Files are read when a container asks for a device, and only then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument, NotFound

ANNOTATION_PREFIX: Final = "cdi.k8s.io/"
_KIND: Final = re.compile(
    r"([A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)/([A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)"
)
_DEVICE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_VERSION: Final = re.compile(r"v?\d+\.\d+\.\d+")
_HOOKS: Final = frozenset(
    ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
)


class DeviceNode(msgspec.Struct, frozen=True, rename="camel"):
    """A device node to make in the container; what is not told is taken from the host's node."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class Hook(msgspec.Struct, frozen=True, rename="camel"):
    """An OCI hook."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class CdiMount(msgspec.Struct, frozen=True, rename="camel"):
    """A mount."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


class IntelRdt(msgspec.Struct, frozen=True):
    """Resource director settings; names as the OCI document has them."""

    closID: str = ""
    l3CacheSchema: str = ""
    memBwSchema: str = ""
    schemata: tuple[str, ...] = ()
    enableCMT: bool = False
    enableMBM: bool = False
    enableMonitoring: bool = False


class NetDevice(msgspec.Struct, frozen=True, rename="camel"):
    """A host network device to move into the container."""

    host_interface_name: str
    name: str


class ContainerEdits(msgspec.Struct, frozen=True, rename="camel"):
    """What a device does to a container."""

    env: tuple[str, ...] | None = None
    device_nodes: tuple[DeviceNode, ...] | None = None
    net_devices: tuple[NetDevice, ...] | None = None
    hooks: tuple[Hook, ...] | None = None
    mounts: tuple[CdiMount, ...] | None = None
    intel_rdt: IntelRdt | None = None
    additional_gids: tuple[int, ...] | None = msgspec.field(default=None, name="additionalGids")


class CdiDevice(msgspec.Struct, frozen=True, rename="camel"):
    """A device of a spec."""

    name: str
    container_edits: ContainerEdits = ContainerEdits()
    annotations: dict[str, str] | None = None


class SpecFile(msgspec.Struct, frozen=True, rename="camel"):
    """One file."""

    cdi_version: str
    kind: str
    devices: tuple[CdiDevice, ...] = ()
    container_edits: ContainerEdits = ContainerEdits()
    annotations: dict[str, str] | None = None


@dataclass(slots=True)
class Registry:
    """The devices of a set of directories.

    :ivar conflicts: qualified names that two files of one directory both define; none of them counts.
    :ivar broken: files that are no specs, and why.
    """

    devices: dict[str, tuple[SpecFile, CdiDevice]] = field(default_factory=dict)
    conflicts: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    broken: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def load(cls, directories: Sequence[Path]) -> Registry:
        """Read the specs. A device of a later directory replaces one of an earlier; a broken file hides
        its own devices only."""
        registry = cls()
        owners: dict[str, tuple[int, Path]] = {}
        for priority, directory in enumerate(directories):
            for path in _spec_files(directory):
                try:
                    spec = parse(path.read_bytes(), path.suffix)
                except (InvalidArgument, OSError) as error:
                    registry.broken[path] = str(error)
                    continue
                registry._add(spec, path, priority, owners)
        return registry

    def _add(self, spec: SpecFile, path: Path, priority: int, owners: dict[str, tuple[int, Path]]) -> None:
        for device in spec.devices:
            name = f"{spec.kind}={device.name}"
            owner = owners.get(name)
            if owner is not None and owner[0] == priority:
                self.conflicts[name] = (owner[1], path)
                self.devices.pop(name, None)
                continue
            self.conflicts.pop(name, None)
            owners[name] = (priority, path)
            self.devices[name] = (spec, device)

    def edits(self, names: Iterable[str]) -> Iterator[ContainerEdits]:
        """The edits of devices by qualified name, those of each file's own before its first device's.

        :raises NotFound: naming every device that cannot be resolved.
        """
        wanted = list(names)
        missing = [name for name in wanted if name not in self.devices]
        if missing:
            raise NotFound(f"CDI devices cannot be resolved: {', '.join(self._why(n) for n in missing)}")
        seen: set[int] = set()
        for name in wanted:
            spec, device = self.devices[name]
            if id(spec) not in seen:
                seen.add(id(spec))
                yield spec.container_edits
            yield device.container_edits

    def _why(self, name: str) -> str:
        if name in self.conflicts:
            first, second = self.conflicts[name]
            return f"{name} (both {first} and {second} define it)"
        kind = name.partition("=")[0]
        stem = kind.replace("/", "-")
        broken = [f"{path}: {why}" for path, why in self.broken.items() if path.stem.startswith(stem)]
        return f"{name} ({'; '.join(broken)})" if broken else name


def requested(config: api_pb2.ContainerConfig) -> list[str]:
    """The qualified device names that a container asks for, by field and by annotation, each once.

    :raises InvalidArgument: for a name that is not vendor/class=device.
    """
    names = [device.name for device in config.CDI_devices]
    for key, value in sorted(config.annotations.items()):
        if key.startswith(ANNOTATION_PREFIX):
            names += [name.strip() for name in value.split(",")]
    for name in names:
        check_name(name)
    return list(dict.fromkeys(names))


def check_name(name: str) -> None:
    """:raises InvalidArgument: when it is no fully qualified device name."""
    kind, equals, device = name.partition("=")
    if not (equals and _KIND.fullmatch(kind) and _DEVICE.fullmatch(device)):
        raise InvalidArgument(f"CDI device {name!r} is not vendor/class=device")


def parse(content: bytes, suffix: str) -> SpecFile:
    """A spec from the content of a ".json", ".yaml" or ".yml" file.

    :raises InvalidArgument: saying what is wrong with it.
    """
    try:
        spec = msgspec.convert(_decode(content, suffix), type=SpecFile)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"not a CDI spec: {error}") from error
    if _VERSION.fullmatch(spec.cdi_version) is None:
        raise InvalidArgument(f"cdiVersion {spec.cdi_version!r} is no version")
    if _KIND.fullmatch(spec.kind) is None:
        raise InvalidArgument(f"kind {spec.kind!r} is not vendor/class")
    if not spec.devices:
        raise InvalidArgument("it has no devices")
    _check_edits(spec.container_edits)
    names: set[str] = set()
    for device in spec.devices:
        if _DEVICE.fullmatch(device.name) is None:
            raise InvalidArgument(f"device name {device.name!r} is not one")
        if device.name in names:
            raise InvalidArgument(f"device {device.name!r} is defined twice")
        names.add(device.name)
        _check_edits(device.container_edits)
    return spec


def _decode(content: bytes, suffix: str) -> Any:
    if suffix == ".json":
        return msgspec.json.decode(content)
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(content, Loader=loader)  # a safe loader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidArgument(f"not YAML: {error}") from error


def _check_edits(edits: ContainerEdits) -> None:
    for entry in edits.env or ():
        if "=" not in entry[1:]:
            raise InvalidArgument(f"env {entry!r} is not NAME=VALUE")
    for node in edits.device_nodes or ():
        if not node.path.startswith("/"):
            raise InvalidArgument(f"device node {node.path!r} is not an absolute path")
        if node.type not in ("", "b", "c", "u", "p"):
            raise InvalidArgument(f"device node {node.path}: type {node.type!r} is not b, c, u or p")
        if set(node.permissions) - set("rwm"):
            raise InvalidArgument(f"device node {node.path}: permissions {node.permissions!r}")
    for hook in edits.hooks or ():
        if hook.hook_name not in _HOOKS or not hook.path.startswith("/"):
            raise InvalidArgument(f"hook {hook.hook_name!r} {hook.path!r} is not one")
    for mount in edits.mounts or ():
        if not mount.container_path.startswith("/") or not mount.host_path:
            raise InvalidArgument(f"mount {mount.host_path!r} on {mount.container_path!r} is not one")


def _spec_files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix in (".json", ".yaml", ".yml"))
    except (FileNotFoundError, NotADirectoryError):
        return []
