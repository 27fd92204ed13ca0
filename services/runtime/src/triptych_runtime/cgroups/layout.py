"""Where the cgroup hierarchies are mounted, and which of the three kernel layouts this node has."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from triptych_linux import mounts
from triptych_linux.mounts import MountEntry

from triptych_runtime.cgroups.errors import NoCgroups

SYSTEMD = "name=systemd"
"""The v1 hierarchy without a controller that systemd uses to track processes."""

_CONTROLLERS = frozenset(
    (
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "misc",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "rdma",
    )
)


class Mode(enum.Enum):
    """How cgroups are laid out (cgroups(7)).

    LEGACY has v1 hierarchies only; HYBRID has v1 controllers and a v2 hierarchy without any;
    UNIFIED has every controller in v2.
    """

    LEGACY = "legacy"
    HYBRID = "hybrid"
    UNIFIED = "unified"


@dataclass(frozen=True, slots=True)
class Layout:
    """The mounted hierarchies.

    :param v1: mount point of each v1 controller, and of `name=systemd`; empty in UNIFIED mode.
    :param unified: mount point of the v2 hierarchy, None in LEGACY mode.
    :param roots: for mount points that show a part of a hierarchy only, which part (mountinfo's root).
    """

    mode: Mode
    v1: Mapping[str, Path]
    unified: Path | None
    roots: Mapping[Path, str]

    @classmethod
    def detect(cls) -> Layout:
        """Read the mount table.

        :raises NoCgroups: when no hierarchy is mounted.
        """
        return cls.of(mounts.mount_table())

    @classmethod
    def of(cls, table: list[MountEntry]) -> Layout:
        """Like `detect`, from a given mount table."""
        v1: dict[str, Path] = {}
        unified: Path | None = None
        roots: dict[Path, str] = {}
        for entry in table:
            if entry.fstype == "cgroup2" and unified is None:
                unified = Path(entry.mount_point)
            elif entry.fstype == "cgroup":
                names = [n for n in entry.super_options.split(",") if n in _CONTROLLERS or n == SYSTEMD]
                for name in names:
                    v1.setdefault(name, Path(entry.mount_point))
            else:
                continue
            roots.setdefault(Path(entry.mount_point), entry.root)
        if not v1 and unified is None:
            raise NoCgroups("no cgroup hierarchy is mounted", hint="mount cgroup2 on /sys/fs/cgroup")
        controllers = v1.keys() - {SYSTEMD}
        if unified is None:
            mode = Mode.LEGACY
        else:
            mode = Mode.HYBRID if controllers else Mode.UNIFIED
        return cls(mode, {} if mode is Mode.UNIFIED else v1, unified, roots)

    @property
    def hierarchies(self) -> tuple[Path, ...]:
        """Every mount point once (v1 controllers may share one), the unified one last."""
        seen = dict.fromkeys(self.v1.values())
        if self.unified is not None:
            seen[self.unified] = None
        return tuple(seen)

    def strip_root(self, mount: Path, path: str) -> str:
        """Turn a path of /proc/PID/cgroup into one below its mount point."""
        root = self.roots.get(mount, "/")
        if root != "/" and (path == root or path.startswith(root + "/")):
            return path[len(root) :] or "/"
        return path


_KEPT_FLAGS = {
    "ro": mounts.Flag.RDONLY,
    "nosuid": mounts.Flag.NOSUID,
    "nodev": mounts.Flag.NODEV,
    "noexec": mounts.Flag.NOEXEC,
    "relatime": mounts.Flag.RELATIME,
}


def remount_options(entry: MountEntry) -> tuple[int, str]:
    """Flags and data that leave the mount of a hierarchy as it is."""
    flags = mounts.Flag.REMOUNT
    for name in entry.options.split(","):
        if name in _KEPT_FLAGS:
            flags |= _KEPT_FLAGS[name]
    return flags, ",".join(o for o in entry.super_options.split(",") if o not in ("rw", "ro"))
