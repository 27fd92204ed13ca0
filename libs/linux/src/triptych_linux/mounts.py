"""Mounting: binds, tmpfs, idmapped clones, and reading the mount table; `overlay` has overlayfs.

Blocking calls of well under a millisecond each, except `umount` of a file system with dirty data; call
that from a thread. See mount(2) and mount_setattr(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from triptych_linux import syscalls

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8


class Flag(enum.IntFlag):
    """MS_* of mount(2)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    BIND = 4096
    MOVE = 8192
    REC = 16384
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
    RELATIME = 1 << 21
    STRICTATIME = 1 << 24


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class Attributes:
    """A change of MOUNT_ATTR_*; :ivar recursive: of what is mounted below as well."""

    set: int = 0
    clear: int = 0
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of /proc/PID/mountinfo (proc(5))."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    mount_point: str
    options: str
    optional: tuple[str, ...]
    fstype: str
    source: str
    super_options: str


def mount(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    fstype: str | None = None,
    flags: int = 0,
    data: str | None = None,
) -> None:
    """mount(2).

    :raises OSError: with the kernel's errno and the target.
    """
    syscalls.mount(os.fspath(source), os.fspath(target), fstype, int(flags), data)


def bind(source: str | os.PathLike[str], target: str | os.PathLike[str], *, readonly: bool = False) -> None:
    """Bind-mount `source` (with its submounts) on `target`; `readonly` applies to the top mount."""
    mount(source, target, None, Flag.BIND | Flag.REC)
    if readonly:
        mount(source, target, None, Flag.BIND | Flag.REMOUNT | Flag.RDONLY)


def umount(target: str | os.PathLike[str], *, detach: bool = True, missing_ok: bool = True) -> bool:
    """Unmount the topmost mount on `target`; never follows a symlink.

    :param detach: take it out of the tree at once and release it when nobody uses it (MNT_DETACH).
    :param missing_ok: no error where nothing is mounted or the path is gone.
    :returns: whether something was unmounted.
    """
    try:
        syscalls.umount2(os.fspath(target), UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0))
    except OSError as error:
        if missing_ok and error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def umount_all(target: str | os.PathLike[str]) -> int:
    """Unmount every mount stacked on `target`; returns how many there were."""
    count = 0
    while umount(target):
        count += 1
    return count


def umount_below(directory: str | os.PathLike[str], *, keep: Iterable[str | os.PathLike[str]] = ()) -> int:
    """Detach every mount at or below `directory`, innermost first; returns how many there were.

    :param keep: mount points whose mounts stay.
    """
    prefix, kept = os.path.realpath(directory), {os.path.realpath(point) for point in keep}
    points = [
        m.mount_point
        for m in mount_table()
        if (m.mount_point == prefix or m.mount_point.startswith(prefix + "/")) and m.mount_point not in kept
    ]
    count = 0
    for point in reversed(points):
        count += umount(point)
    return count


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close a descriptor at the end of the context."""
    try:
        yield fd
    finally:
        os.close(fd)


def clone_tree(path: str | os.PathLike[str], *, recursive: bool = False) -> int:
    """A detached bind mount of `path` (open_tree(2) with OPEN_TREE_CLONE), as a file descriptor."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    raw = ctypes.c_char_p(os.fsencode(path))
    return syscalls.syscall(
        syscalls.SYS_OPEN_TREE, ctypes.c_int(AT_FDCWD), raw, ctypes.c_uint(flags), path=path
    )


def move_mount(fd: int, target: str | os.PathLike[str]) -> None:
    """Attach the detached mount `fd` on `target` (move_mount(2))."""
    raw = ctypes.c_char_p(os.fsencode(target))
    args = (
        ctypes.c_int(fd),
        ctypes.c_char_p(b""),
        ctypes.c_int(AT_FDCWD),
        raw,
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
    )
    syscalls.syscall(syscalls.SYS_MOVE_MOUNT, *args, path=target)


def set_attributes(
    fd: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) on a mount given by descriptor."""
    attr = _MountAttr(attr_set, attr_clr, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    args = (ctypes.c_int(fd), ctypes.c_char_p(b""), ctypes.c_uint(flags), ctypes.byref(attr), size)
    syscalls.syscall(syscalls.SYS_MOUNT_SETATTR, *args)


def bind_idmapped(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    userns: str | os.PathLike[str],
    *,
    readonly: bool = False,
) -> None:
    """Bind-mount `source` on `target` with the ID mapping of the user namespace pinned at `userns`.

    :raises OSError: EINVAL where the file system of `source` has no idmapped mounts.
    """
    with closing(clone_tree(source)) as tree, closing(os.open(userns, os.O_RDONLY | os.O_CLOEXEC)) as ns:
        attributes = MOUNT_ATTR_IDMAP | (MOUNT_ATTR_RDONLY if readonly else 0)
        set_attributes(tree, attr_set=attributes, userns_fd=ns, propagation=Flag.PRIVATE)
        move_mount(tree, target)


def bind_with(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    changes: Iterable[Attributes],
    userns: str | os.PathLike[str] | None = None,
    *,
    slave: bool = False,
) -> None:
    """Bind-mount `source`, and what is mounted below it, on `target` with other attributes.

    It is no peer of `source`: to unmount it does not unmount what is mounted below `source`.

    :param userns: pins the user namespace whose ID mapping the topmost mount gets.
    :param slave: what is mounted below `source` later is seen there too.
    :raises OSError: EINVAL where the file system of `source` has no idmapped mounts.
    """
    with closing(clone_tree(source, recursive=True)) as tree:
        set_attributes(tree, propagation=Flag.SLAVE if slave else Flag.PRIVATE, recursive=True)
        for change in changes:
            set_attributes(tree, attr_set=change.set, attr_clr=change.clear, recursive=change.recursive)
        if userns is not None:
            with closing(os.open(userns, os.O_RDONLY | os.O_CLOEXEC)) as ns:
                set_attributes(tree, attr_set=MOUNT_ATTR_IDMAP, userns_fd=ns)
        move_mount(tree, target)


def mount_table(pid: int | str = "self") -> list[MountEntry]:
    """The mount table of a process, in the kernel's order (parents before children)."""
    raw = Path(f"/proc/{pid}/mountinfo").read_bytes()
    return [_parse(line) for line in raw.decode(errors="surrogateescape").splitlines()]


def is_mount_point(path: str | os.PathLike[str]) -> bool:
    """Whether something is mounted on `path`."""
    real = os.path.realpath(path)
    return any(entry.mount_point == real for entry in mount_table())


def mount_of(path: str | os.PathLike[str]) -> MountEntry:
    """The mount that `path` lies on."""
    real = os.path.realpath(path)
    best: MountEntry | None = None
    for entry in mount_table():
        point = entry.mount_point
        inside = real == point or point == "/" or real.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best.mount_point)):
            best = entry
    if best is None:
        raise FileNotFoundError(errno.ENOENT, "no mount holds this path", real)
    return best


def _parse(line: str) -> MountEntry:
    fields = line.split(" ")
    dash = fields.index("-", 6)
    return MountEntry(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        device=fields[2],
        root=_unescape(fields[3]),
        mount_point=_unescape(fields[4]),
        options=fields[5],
        optional=tuple(fields[6:dash]),
        fstype=fields[dash + 1],
        source=_unescape(fields[dash + 2]),
        super_options=fields[dash + 3] if len(fields) > dash + 3 else "",
    )


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
