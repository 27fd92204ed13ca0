"""Mounts of a container: the pod's files and those of the request, over the default file systems."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument
from triptych_linux.mounts import MountEntry, mount_of

from triptych_runtime.spec import default_mounts, mount_options
from triptych_runtime.spec.facts import HandlerFeatures, HostFacts
from triptych_runtime.spec.inputs import (
    AnonymousVolume,
    ContainerInputs,
    Document,
    PreparedMount,
    Relabel,
    SandboxContext,
)
from triptych_runtime.spec.namespaces import id_mappings
from triptych_runtime.spec.prepared import prepare

_PROPAGATION: Final = {
    api_pb2.PROPAGATION_PRIVATE: "rprivate",
    api_pb2.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    api_pb2.PROPAGATION_BIDIRECTIONAL: "rshared",
}
# What the mount below the host path must be, by the start of its optional fields (proc_pid_mountinfo(5)).
_NEEDED: Final = {
    "rshared": (("shared:",), "a shared mount"),
    "rslave": (("shared:", "master:"), "a shared or slave mount"),
}


@dataclass(slots=True)
class Mounts:
    """`mounts` and `linux.rootfsPropagation` in the making, and what they need on the host."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    rootfs_propagation: str = ""
    directories: list[Path] = field(default_factory=list)
    relabels: list[Relabel] = field(default_factory=list)
    prepared: list[PreparedMount] = field(default_factory=list)
    volumes: list[AnonymousVolume] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Bind:
    """A bind mount to make: the request's message, where it comes from, and whether that is the daemon's."""

    mount: api_pb2.Mount
    source: str
    image: bool = False
    volume: bool = False

    @property
    def destination(self) -> str:
        return clean(self.mount.container_path)


def build(
    host: HostFacts,
    handler: HandlerFeatures,
    sandbox: SandboxContext,
    inputs: ContainerInputs,
    mount_label: str,
    *,
    find_mount: Callable[[str], MountEntry] = mount_of,
) -> Mounts:
    """All mounts, in the order in which they are to be made: fewer path components first.

    A mount of the request takes the place of a default one with the same destination, and of everything
    below /dev when it covers /dev. A host path that does not exist becomes a directory, as with peers.

    :param find_mount: tells the mount that a host path lies on; only called for shared propagation.
    :raises InvalidArgument: naming the container path.
    :raises FailedPrecondition: when the handler lacks what a mount needs.
    """
    result = Mounts()
    binds = _request_binds(inputs)
    taken = {bind.destination for bind in binds}
    pod_binds = [bind for bind in _pod_binds(sandbox, inputs) if bind.destination not in taken]
    volume_binds = _volume_binds(sandbox, inputs, taken, result)
    binds = sorted([*binds, *volume_binds, *pod_binds], key=lambda bind: bind.destination.count("/"))
    taken = {bind.destination for bind in binds}
    for entry in default_mounts.defaults(host, sandbox, inputs):
        destination = entry["destination"]
        if destination in taken or ("/dev" in taken and destination.startswith("/dev/")):
            continue
        result.entries.append(entry)
    for bind in binds:
        _add(bind, result, handler, sandbox, inputs, mount_label, find_mount)
    return result


def clean(path: str) -> str:
    """An absolute container path without "." and "..", as runtimes see it."""
    return posixpath.normpath("/" + path.lstrip("/"))


def validate(mounts: Iterable[api_pb2.Mount], handler: HandlerFeatures) -> None:
    """The checks that need no host.

    :raises InvalidArgument: naming the container path.
    :raises FailedPrecondition: when the handler lacks what a mount needs.
    """
    for mount in mounts:
        where = f"mounts: {mount.container_path or mount.host_path!r}"
        if not mount.container_path:
            raise InvalidArgument(f"{where}: container_path is empty")
        if clean(mount.container_path) == "/":
            raise InvalidArgument(f"{where}: container_path is the root of the container")
        _validate_source(mount, where)
        _validate_flags(mount, where, handler)
        mount_options.check(mount.mount_options, where, handler.mount_options)


def _validate_source(mount: api_pb2.Mount, where: str) -> None:
    if "\0" in mount.container_path or "\0" in mount.host_path:
        raise InvalidArgument(f"{where}: a path holds a NUL byte")
    if not is_image(mount):
        if not mount.host_path.startswith("/"):
            raise InvalidArgument(f"{where}: host_path {mount.host_path!r} is not an absolute path")
        if mount.image_sub_path:
            raise InvalidArgument(f"{where}: image_sub_path is set without image")
        return
    if mount.host_path:
        raise InvalidArgument(f"{where}: both image and host_path are set")
    if not mount.readonly:
        raise InvalidArgument(f"{where}: an image volume must be readonly")
    if mount.propagation != api_pb2.PROPAGATION_PRIVATE:
        raise InvalidArgument(f"{where}: an image volume's propagation must be private")


def _validate_flags(mount: api_pb2.Mount, where: str, handler: HandlerFeatures) -> None:
    if mount.propagation not in api_pb2.MountPropagation.values():
        raise InvalidArgument(f"{where}: propagation {int(mount.propagation)} is unknown")
    if mount.recursive_read_only:
        if not mount.readonly:
            raise InvalidArgument(f"{where}: recursive_read_only is set on a mount that is not readonly")
        if mount.propagation != api_pb2.PROPAGATION_PRIVATE:
            raise InvalidArgument(f"{where}: recursive_read_only needs private propagation")
        if not handler.recursive_read_only:
            # The kubelet turns this word of cri-api (pkg/errors) into the reason that it shows.
            raise FailedPrecondition(
                f"RROUnsupported: {where}: runtime {handler.name} has no recursive read-only mounts"
            )
    if bool(mount.uidMappings) != bool(mount.gidMappings):
        raise InvalidArgument(f"{where}: uidMappings and gidMappings need one another")


def is_image(mount: api_pb2.Mount) -> bool:
    """Whether a mount of the request is an image volume."""
    return mount.HasField("image") and bool(mount.image.image or mount.image.image_ref)


def _request_binds(inputs: ContainerInputs) -> list[_Bind]:
    binds: list[_Bind] = []
    for index, mount in enumerate(inputs.config.mounts):
        if is_image(mount):
            binds.append(_Bind(mount, str(inputs.image_volumes[index]), image=True))
        else:
            binds.append(_Bind(mount, os.path.realpath(mount.host_path)))
    return binds


def _pod_binds(sandbox: SandboxContext, inputs: ContainerInputs) -> list[_Bind]:
    readonly = inputs.security.readonly_rootfs
    relabel = bool(sandbox.mount_label)
    binds: list[_Bind] = []
    for destination, source in (
        ("/etc/hostname", sandbox.hostname_file),
        ("/etc/hosts", sandbox.hosts),
        ("/etc/resolv.conf", sandbox.resolv_conf),
    ):
        if source is not None and source.exists():
            mount = api_pb2.Mount(
                container_path=destination,
                host_path=str(source),
                readonly=readonly,
                selinux_relabel=relabel,
            )
            binds.append(_Bind(mount, str(source)))
    host_ipc = sandbox.security.namespace_options.ipc == api_pb2.NODE
    shm = Path("/dev/shm") if host_ipc else sandbox.shm
    if shm is not None:
        mount = api_pb2.Mount(
            container_path="/dev/shm", host_path=str(shm), selinux_relabel=relabel and not host_ipc
        )
        binds.append(_Bind(mount, str(shm)))
    return binds


def _volume_binds(
    sandbox: SandboxContext, inputs: ContainerInputs, taken: set[str], result: Mounts
) -> list[_Bind]:
    """Volumes of the image config that no mount of the request covers: anonymous directories."""
    binds: list[_Bind] = []
    for index, path in enumerate(sorted(inputs.image.volumes or {})):
        destination = clean(path)
        if destination in taken or destination == "/":
            continue
        source = inputs.volumes / str(index)
        result.volumes.append(AnonymousVolume(source, destination, sandbox.root))
        mount = api_pb2.Mount(container_path=destination, host_path=str(source), selinux_relabel=True)
        binds.append(_Bind(mount, str(source), volume=True))
    return binds


def _add(
    bind: _Bind,
    result: Mounts,
    handler: HandlerFeatures,
    sandbox: SandboxContext,
    inputs: ContainerInputs,
    mount_label: str,
    find_mount: Callable[[str], MountEntry],
) -> None:
    mount, source = bind.mount, bind.source
    if not (bind.image or bind.volume) and not os.path.exists(source):
        result.directories.append(Path(source))
    target = inputs.bundle / "prepared" / str(len(result.prepared))
    prepared = prepare(mount, source, target, sandbox, handler, image=bind.image)
    if prepared is not None:
        result.prepared.append(prepared)
    if mount.selinux_relabel and mount_label and not bind.image:
        result.relabels.append(Relabel(Path(source), mount_label))
    propagation = _PROPAGATION.get(mount.propagation, "rprivate")
    where = f"mounts: {mount.container_path}"
    result.rootfs_propagation = propagate(propagation, result.rootfs_propagation, where, source, find_mount)
    options = _options(bind, propagation, sandbox, whole=prepared is None)
    source = source if prepared is None else str(target)
    entry = default_mounts.entry(bind.destination, "bind", source, options)
    if mount.uidMappings and not bind.image and handler.idmap_mounts:
        entry |= {
            "uidMappings": id_mappings(mount.uidMappings),
            "gidMappings": id_mappings(mount.gidMappings),
        }
    result.entries.append(entry)


def _options(bind: _Bind, propagation: str, sandbox: SandboxContext, *, whole: bool) -> list[str]:
    """The options of a bind mount.

    :param whole: whether the OCI runtime has to reach what is mounted below; a file has nothing there, and
        crun refuses to look.
    """
    mount = bind.mount
    directory = os.path.isdir(bind.source) or not os.path.exists(bind.source)
    readonly = "rro" if mount.recursive_read_only and directory else "ro"
    access = readonly if mount.readonly or bind.image else "rw"
    wanted = mount.mount_options if whole and directory else mount_options.of_top(mount.mount_options)
    locked = mount_options.of_mount(bind.source) if sandbox.user_namespace is not None else []
    return mount_options.merge(["rbind", propagation, access, *locked], wanted)


def propagate(
    option: str, rootfs: str, where: str, source: str, find_mount: Callable[[str], MountEntry] = mount_of
) -> str:
    """`linux.rootfsPropagation` for a bind mount with this option, where it was `rootfs` before.

    :param where: what an error begins with. :param source: the host path that is mounted.
    :raises FailedPrecondition: when the mount that `source` lies on does not propagate.
    """
    if option not in _NEEDED:
        return rootfs
    tags, what = _NEEDED[option]
    entry = find_mount(source)
    if not any(tag.startswith(tags) for tag in entry.optional):
        raise FailedPrecondition(
            f"{where}: host path {source} is mounted on {entry.mount_point}, which is not {what}"
        )
    return "rshared" if option == "rshared" else rootfs or "rslave"


def place(entries: Iterable[dict[str, Any]], entry: dict[str, Any]) -> list[dict[str, Any]]:
    """`entries` with `entry` in place of the one on its destination, fewer path components first."""
    kept = [other for other in entries if other["destination"] != entry["destination"]]
    return sorted([*kept, entry], key=lambda m: m["destination"].count("/"))


def bind_options(kind: str, options: Iterable[str], source: str, document: Document) -> list[str]:
    """The options of a mount that is added to `document`; a bind mount has one that says so.

    In a user namespace it has the flags of the mount below as well (`mount_options.of_mount`).
    """
    given = list(options)
    if kind == "bind" and not {"bind", "rbind"} & set(given):
        given.insert(0, "rbind")
    if {"bind", "rbind"} & set(given) and document["linux"].get("uidMappings"):
        given += [o for o in mount_options.of_mount(source) if not {o, o.removeprefix("no")} & set(given)]
    return given
