"""Where images and state lie: room, inodes, and file systems that carry overlays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from triptych_cli import render
from triptych_cli.context import DaemonName
from triptych_cli.doctor.model import Findings, Host, error, ok, warning

_LOW_SHARE = 0.15
_LOWEST_BYTES = 2 << 30
_REFUSED = {"nfs", "nfs4", "cifs", "vfat", "overlay", "fuse.sshfs", "9p", "aufs"}
"""File systems that cannot be the upper layer of an overlay."""


def check(host: Host) -> Findings:
    """Everything about disks."""
    seen: set[int] = set()
    for directory in _directories(host):
        place = _existing(host.path(directory))
        device = place.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield from _space(directory, place)
            yield from _file_system(host, directory, place)
    state = str(host.setting(DaemonName.RUNTIME, "state", "/run/triptych/runtime"))
    kind = _type(host, _existing(host.path(state)))
    if kind in ("tmpfs", "ramfs"):
        yield ok("state", f"{state} is on {kind}")
    else:
        yield warning("state", f"{state} is on {kind}, which survives a reboot", "mount a tmpfs at /run")


def _directories(host: Host) -> Iterator[str]:
    for daemon in (DaemonName.IMAGE, DaemonName.RUNTIME):
        yield str(host.setting(daemon, "root", f"/var/lib/triptych/{daemon.value}"))
    rootfs = str(host.setting(DaemonName.IMAGE, "rootfs_root", ""))
    if rootfs:
        yield rootfs


def _existing(path: Path) -> Path:
    """The directory, or the nearest one above it that is there already."""
    while not path.exists():
        path = path.parent
    return path


def _space(directory: str, place: Path) -> Findings:
    found = os.statvfs(place)
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    text = f"{render.size(free)} of {render.size(whole)} free"
    if free < _LOWEST_BYTES or (whole and free < whole * _LOW_SHARE):
        yield warning(
            directory,
            f"{text}: the kubelet begins to remove images at 15%",
            "triptych image prune --all, or a larger disk",
        )
    else:
        yield ok(directory, text)
    if found.f_files and found.f_favail < found.f_files * 0.05:
        yield error(
            directory, f"{found.f_favail} inodes free of {found.f_files}", "triptych image prune --all"
        )


def _file_system(host: Host, directory: str, place: Path) -> Findings:
    kind = _type(host, place)
    if kind in _REFUSED:
        yield error(
            directory, f"on {kind}, which cannot carry overlays", "another file system: ext4, xfs or btrfs"
        )
    elif kind in ("tmpfs", "ramfs"):
        yield warning(directory, f"on {kind}: images are lost at a reboot and use memory", "a disk")
    else:
        yield ok(directory, f"on {kind}")


def _type(host: Host, place: Path) -> str:
    """The type of the file system that holds a directory."""
    device = place.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    best, kind = "", "an unknown file system"
    for line in host.read("/proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        parts = fields.split(" ")
        point = parts[4].encode().decode("unicode_escape")
        # Anonymous devices (btrfs) differ from what stat says, so the longest mount point decides then.
        if parts[2] == wanted or str(place) == point or str(place).startswith(point.rstrip("/") + "/"):
            exact = parts[2] == wanted
            if exact or len(point) >= len(best):
                best, kind = point, rest.split(" ")[0]
            if exact:
                return kind
    return kind
