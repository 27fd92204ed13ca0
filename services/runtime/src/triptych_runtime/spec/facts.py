"""What the host and the OCI runtime can do: the facts a spec is built against.

`HostFacts.probe` reads a few small files of /proc and /sys, once at the start of the daemon.
"""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from triptych_errors import Internal

from triptych_runtime.spec.capabilities import names_of_mask
from triptych_runtime.spec.newer_fields import NewerField, ignored, ignored_as_told

# What crun does of mount_options before it tells itself (`crun features`, 1.8.6): it leaves out the others
# without a word, and takes rrelatime for nosymfollow.
_CRUN_MOUNT_OPTIONS: Final = frozenset(
    "noatime relatime strictatime nodiratime diratime rnoexec rexec rnosuid rsuid rnodev rdev".split()
)
DEFAULT_SECCOMP: Final = Path("/usr/share/containers/seccomp.json")


class CgroupVersion(enum.StrEnum):
    """How control groups are mounted below /sys/fs/cgroup."""

    V1 = "v1"
    HYBRID = "hybrid"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts of this host and of the daemon's own process, equal for every container.

    :ivar bounding: the daemon's capability bounding set ("CAP_..."): what privileged and ALL mean.
    :ivar oom_score_adj: the daemon's own; without CAP_SYS_RESOURCE nothing below it can be set.
    :ivar may_lower_oom: whether scores are taken as they are: the daemon has CAP_SYS_RESOURCE, or is told
        not to restrict them.
    :ivar kernel: major and minor version, for the conditions of seccomp profiles.
    :ivar machine: `uname -m`.
    :ivar hugepage_sizes: as the CRI names them ("2MB"); None when nobody looked.
    :ivar seccomp_profile: file of the RuntimeDefault profile (containers-common or OCI format).
    :ivar seccomp_harden: whether RuntimeDefault closes what containers-common leaves open (`seccomp`);
        not done to a profile of the administrator's own.
    :ivar hostname: of the host, for pods that use its network.
    :ivar cgroup_mount_options: super options of cgroup2 that a container sharing the host's cgroup
        namespace must repeat, lest it strips them from the shared superblock.
    """

    cgroup_version: CgroupVersion = CgroupVersion.V2
    bounding: tuple[str, ...] = ()
    oom_score_adj: int = 0
    may_lower_oom: bool = True
    kernel: tuple[int, int] = (5, 15)
    machine: str = "x86_64"
    seccomp: bool = True
    apparmor: bool = False
    selinux: bool = False
    hugetlb_controller: bool = True
    hugepage_sizes: frozenset[str] | None = None
    swap_controller: bool = True
    seccomp_profile: Path = DEFAULT_SECCOMP
    seccomp_harden: bool = True
    apparmor_profiles: Path = Path("/sys/kernel/security/apparmor/profiles")
    cgroup_mount_options: tuple[str, ...] = ()
    hostname: str = "localhost"

    @classmethod
    def probe(cls, *, seccomp_profile: Path | None = None, restrict_oom: bool = True) -> HostFacts:
        """Read the facts of this host; well under a millisecond of small reads.

        :param restrict_oom: raise scores that the daemon may not set; without it they make the container
            fail to start, as with a peer that does not restrict them.
        """
        status = _status()
        uname = os.uname()
        version = _cgroup_version()
        return cls(
            cgroup_version=version,
            bounding=names_of_mask(int(status.get("CapBnd", "0"), 16)),
            oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
            may_lower_oom=not restrict_oom
            or "CAP_SYS_RESOURCE" in names_of_mask(int(status.get("CapEff", "0"), 16)),
            kernel=_kernel(uname.release),
            machine=uname.machine,
            seccomp="Seccomp" in status,
            apparmor=_apparmor(),
            selinux=_selinux(),
            hugetlb_controller=_has_hugetlb(version),
            hugepage_sizes=_hugepage_sizes(),
            swap_controller=_has_swap(version),
            seccomp_profile=seccomp_profile or DEFAULT_SECCOMP,
            seccomp_harden=seccomp_profile in (None, DEFAULT_SECCOMP),
            cgroup_mount_options=_cgroup_mount_options() if version is CgroupVersion.V2 else (),
            hostname=uname.nodename,
        )


@dataclass(frozen=True, slots=True)
class HandlerFeatures:
    """What one OCI runtime (crun, runc, ...) can do; the defaults are those of a current one.

    :ivar user_namespaces: whether it joins a pinned user namespace.
    :ivar idmap_mounts: whether it makes arbitrary idmapped mounts itself; where not, the daemon makes them
        (`ContainerSpec.prepared`).
    :ivar mount_options: the options it knows, empty when it does not tell.
    :ivar ignored: fields of newer documents that it would ignore.
    """

    name: str = ""
    version: tuple[int, ...] = ()
    recursive_read_only: bool = True
    user_namespaces: bool = True
    idmap_mounts: bool = True
    seccomp: bool = True
    apparmor: bool = True
    selinux: bool = True
    mount_options: frozenset[str] = field(default_factory=frozenset)
    ignored: frozenset[NewerField] = frozenset()

    @property
    def binds_devices(self) -> bool:
        """Whether in a user namespace it binds the host's node of a device's path, whatever that is."""
        return self.name != "crun"

    @property
    def copies_output(self) -> bool:
        """Whether its exec copies the command's output, and so ends only when nobody holds that any more."""
        return self.name == "runc"

    @classmethod
    def of_version(cls, text: str) -> HandlerFeatures:
        """From the output of `RUNTIME --version`, by what is known of crun, runc and youki.

        An unknown runtime is believed to be current.
        """
        match = re.search(r"^(\S+)\s+version:?\s+v?(\d+(?:\.\d+)*)", text, re.MULTILINE)
        if match is None:
            return cls()
        name, version = match[1], tuple(int(part) for part in match[2].split("."))
        if name == "crun":
            return cls(
                name=name,
                version=version,
                recursive_read_only=version >= (1, 4),
                idmap_mounts=version >= (1, 9),
                seccomp="+SECCOMP" in text,
                apparmor="+APPARMOR" in text,
                selinux="+SELINUX" in text,
                ignored=ignored(name, version),
                mount_options=_CRUN_MOUNT_OPTIONS if version < (1, 8, 6) else frozenset(),
            )
        if name == "runc":
            return cls(
                name=name,
                version=version,
                recursive_read_only=version >= (1, 1),
                idmap_mounts=version >= (1, 2),
                seccomp="libseccomp" in text,
                ignored=ignored(name, version),
            )
        return cls(name=name, version=version)

    @classmethod
    def of_features(cls, document: bytes, version_text: str = "") -> HandlerFeatures:
        """From the output of `RUNTIME features` (runtime-spec, features.md), which beats version tables.

        :raises Internal: when it is no such document.
        """
        try:
            told = msgspec.json.decode(document, type=_Features)
        except msgspec.MsgspecError as error:
            raise Internal(f"the OCI runtime's features document is not understood: {error}") from error
        base = cls.of_version(version_text)
        options = frozenset(told.mount_options or ())
        linux = told.linux or _LinuxFeatures()
        parts = {
            "intelRdt": linux.intel_rdt,
            "netDevices": linux.net_devices,
            "memoryPolicy": linux.memory_policy,
        }
        idmap = _enabled(linux.mount_extensions.get("idmap"))
        return cls(
            name=base.name,
            version=base.version,
            recursive_read_only="rro" in options,
            idmap_mounts=idmap,
            user_namespaces="user" in (linux.namespaces or ("user",)),
            seccomp=_enabled(linux.seccomp),
            apparmor=_enabled(linux.apparmor),
            selinux=_enabled(linux.selinux),
            mount_options=options,
            ignored=ignored_as_told(parts, base.ignored),
        )


class _LinuxFeatures(msgspec.Struct, frozen=True, rename="camel"):
    namespaces: tuple[str, ...] | None = None
    seccomp: dict[str, Any] | None = None
    apparmor: dict[str, Any] | None = None
    selinux: dict[str, Any] | None = None
    intel_rdt: dict[str, Any] | None = None
    net_devices: dict[str, Any] | None = None
    memory_policy: dict[str, Any] | None = None
    mount_extensions: dict[str, Any] = {}


class _Features(msgspec.Struct, frozen=True, rename="camel"):
    mount_options: tuple[str, ...] | None = None
    linux: _LinuxFeatures | None = None


def _enabled(part: dict[str, Any] | None) -> bool:
    return bool(part and part.get("enabled"))


def _status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _kernel(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _cgroup_version() -> CgroupVersion:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return CgroupVersion.V2
    return CgroupVersion.HYBRID if (root / "unified/cgroup.procs").exists() else CgroupVersion.V1


def _apparmor() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def _selinux() -> bool:
    return Path("/sys/fs/selinux/enforce").exists()


def _has_hugetlb(version: CgroupVersion) -> bool:
    if version is CgroupVersion.V2:
        return "hugetlb" in Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    return Path("/sys/fs/cgroup/hugetlb/cgroup.procs").exists()


def _hugepage_sizes() -> frozenset[str]:
    found: set[str] = set()
    for directory in Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        size, unit = int(directory.name.removeprefix("hugepages-").removesuffix("kB")), 0
        while size % 1024 == 0:
            size, unit = size // 1024, unit + 1
        found.add(f"{size}{'KMGT'[unit]}B")
    return frozenset(found)


def _has_swap(version: CgroupVersion) -> bool:
    if version is not CgroupVersion.V2:
        return Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
    own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
    return Path(f"/sys/fs/cgroup{own}/memory.swap.max").exists()


def _cgroup_mount_options() -> tuple[str, ...]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split(" ")
        if fields[1] == "/sys/fs/cgroup":
            return tuple(o for o in fields[3].split(",") if o in ("nsdelegate", "memory_recursiveprot"))
    return ()
