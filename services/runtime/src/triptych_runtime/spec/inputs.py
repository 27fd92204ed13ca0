"""What a container spec is built from, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from runtime.v1 import api_pb2
from triptych_oci import ContainerConfig as ImageSettings

from triptych_runtime.spec.rootfs import RootfsView

Document: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NamespacePaths:
    """The pod's pinned namespaces; None where the pod has none of its own (then the host's is used).

    :ivar pid: the namespace of the pod's init, for pods that share their PID namespace.
    """

    network: Path | None = None
    ipc: Path | None = None
    uts: Path | None = None
    pid: Path | None = None
    user: Path | None = None


@dataclass(frozen=True, slots=True)
class SandboxContext:
    """The pod that the container joins.

    :ivar hosts: files on the host, mounted unless the kubelet mounts its own; None or missing: not mounted.
    :ivar shm: directory of the pod's tmpfs for /dev/shm; ignored when the pod uses the host's IPC.
    :ivar process_label: SELinux labels of the pod, taken by containers that set none themselves.
    """

    sandbox_id: str
    config: api_pb2.PodSandboxConfig
    namespaces: NamespacePaths = field(default_factory=NamespacePaths)
    hostname: str = ""
    hostname_file: Path | None = None
    hosts: Path | None = None
    resolv_conf: Path | None = None
    shm: Path | None = None
    process_label: str = ""
    mount_label: str = ""

    @property
    def security(self) -> api_pb2.LinuxSandboxSecurityContext:
        return self.config.linux.security_context

    @property
    def user_namespace(self) -> api_pb2.UserNamespace | None:
        """The pod's ID mappings, or None when it runs in the host's user namespace."""
        options = self.security.namespace_options
        if not options.HasField("userns_options") or options.userns_options.mode != api_pb2.POD:
            return None
        return options.userns_options

    @property
    def root(self) -> tuple[int, int]:
        """Host UID and GID of the pod's root, which every user namespace must map (`validate_sandbox`)."""
        users = self.user_namespace
        if users is None:
            return 0, 0
        uid, gid = (
            next(mapping.host_id for mapping in mappings if mapping.container_id == 0)
            for mappings in (users.uids, users.gids)
        )
        return uid, gid


@dataclass(frozen=True, slots=True)
class ContainerInputs:
    """The container to build.

    :ivar rootfs: `root.path` of the document; the bundle's rootfs directory.
    :ivar files: the root filesystem's content for user look-ups; see `RootfsView`.
    :ivar cgroups_path: `linux.cgroupsPath` in the form of the cgroup driver; empty: the runtime's default.
    :ivar bundle: the bundle's directory on the host, where `ContainerSpec.files` will be written.
    :ivar volumes: directory below which anonymous volumes of the image config get their directories.
    :ivar image_volumes: for each index of `config.mounts` that mounts an image, its prepared host path.
    :ivar target_pid_namespace: for PID mode TARGET, the target's PID namespace.
    :ivar annotations: more annotations for the document, which win over the built ones.
    :ivar passthrough_annotations: patterns (fnmatch) of pod and container annotations that the handler gets.
    :ivar seccomp_root: where relative Localhost seccomp profiles live (kubelet sends absolute paths).
    :ivar image_ref: name for the annotation io.kubernetes.cri.image-name when the kubelet gave none.
    :ivar cdi_dirs: CDI spec directories, lowest priority first.
    :ivar privileged_host_devices: whether privileged containers get every device of the host.
    :ivar device_ownership: give CRI devices the container's user and group (containerd's
        device_ownership_from_security_context).
    :ivar cgroup_writable: mount /sys/fs/cgroup read-write without privileged.
    :ivar apparmor_default: name of the loaded AppArmor profile for RuntimeDefault.
    """

    container_id: str
    config: api_pb2.ContainerConfig
    image: ImageSettings
    rootfs: Path
    files: RootfsView
    bundle: Path
    volumes: Path
    cgroups_path: str = ""
    image_volumes: Mapping[int, Path] = field(default_factory=dict)
    target_pid_namespace: Path | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    passthrough_annotations: tuple[str, ...] = ()
    seccomp_root: Path = Path("/var/lib/kubelet/seccomp")
    image_ref: str = ""
    cdi_dirs: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))
    privileged_host_devices: bool = True
    device_ownership: bool = False
    cgroup_writable: bool = False
    apparmor_default: str = "triptych-default"

    @property
    def security(self) -> api_pb2.LinuxContainerSecurityContext:
        return self.config.linux.security_context


@dataclass(frozen=True, slots=True)
class ResolvedUser:
    """Who the process runs as; reported in ContainerStatus.user."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @classmethod
    def of_process(cls, process: Document) -> ResolvedUser:
        """The user of a process document."""
        user = process["user"]
        return cls(user["uid"], user["gid"], tuple(user["additionalGids"]))

    def message(self) -> api_pb2.ContainerUser:
        """As ContainerStatus reports it."""
        user = api_pb2.LinuxContainerUser(uid=self.uid, gid=self.gid, supplemental_groups=self.groups)
        return api_pb2.ContainerUser(linux=user)


@dataclass(frozen=True, slots=True)
class AnonymousVolume:
    """A volume of the image config that no mount of the request covers.

    Create `source` and fill it with `volumes.populate` before the container is created.

    :ivar owner: host UID and GID of the pod's root, whose it is where the image has nothing there.
    """

    source: Path
    destination: str
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Relabel:
    """A host path to give an SELinux label to, with all below it (`selinux.relabel`)."""

    path: Path
    label: str


@dataclass(frozen=True, slots=True)
class PreparedMount:
    """A bind mount that the daemon makes before the container is created, for a handler that cannot.

    `target` is a directory or an empty file in the bundle, as `source` is; unmount it when the container is
    removed.

    :ivar options: the request's mount_options (`mount_options.attributes`).
    :ivar user_namespace: whose ID mapping it gets, None for none.
    :ivar slave: whether what is mounted below `source` later is seen there too.
    """

    source: Path
    target: Path
    options: tuple[str, ...] = ()
    user_namespace: Path | None = None
    slave: bool = False


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file that must be in the bundle before the container is created."""

    path: Path
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class StopSignal:
    """The signal that StopContainer sends.

    :ivar number: for kill(2); :ivar name: "SIGTERM", "SIGRTMIN+3".
    :ivar reported: what ContainerStatus.stop_signal says.
    """

    number: int
    name: str
    reported: api_pb2.Signal.ValueType


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A built container.

    Before the OCI runtime gets the document: create `directories` (mode 0755, parents too), write `files`,
    fill `anonymous_volumes`, do `relabels`, mount `prepared`; in this order.

    :ivar document: config.json; write it with `encode`.
    :ivar mounts: ContainerStatus.mounts, as peers report them: those of the request, host paths as given.
    :ivar raw_environment: variables that the document cannot carry, in the program among `files`.
    """

    document: Document
    user: ResolvedUser
    stop_signal: StopSignal
    mounts: tuple[api_pb2.Mount, ...] = ()
    directories: tuple[Path, ...] = ()
    anonymous_volumes: tuple[AnonymousVolume, ...] = ()
    relabels: tuple[Relabel, ...] = ()
    prepared: tuple[PreparedMount, ...] = ()
    files: tuple[BundleFile, ...] = ()
    raw_environment: tuple[bytes, ...] = ()
