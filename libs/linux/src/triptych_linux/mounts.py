"""Mounting: binds, tmpfs, overlayfs, idmapped clones, and reading the mount table.

Blocking calls of well under a millisecond each, except `umount` of a file system with dirty data; call
that from a thread. See mount(2), mount_setattr(2), and Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych_linux import syscalls

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_IDMAP = 0x100000
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# fs/namespace.c copies one page of mount(2) data; a longer overlay option string needs fsconfig(2).
_MOUNT_DATA_LIMIT = 4000


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


def umount_below(directory: str | os.PathLike[str]) -> int:
    """Detach every mount at or below `directory`, innermost first; returns how many there were."""
    prefix = os.path.realpath(directory)
    points = [
        m.mount_point
        for m in mount_table()
        if m.mount_point == prefix or m.mount_point.startswith(prefix + "/")
    ]
    count = 0
    for point in reversed(points):
        count += umount(point)
    return count


def mount_overlay(
    target: str | os.PathLike[str],
    lower: Sequence[str],
    *,
    upper: str = "",
    work: str = "",
    options: Iterable[str] = (),
    flags: int = 0,
) -> None:
    """Mount an overlay on `target`.

    One lower directory without an upper one becomes a read-only bind mount, which overlayfs refuses.
    An option string longer than a page goes through fsconfig(2), where each layer is a parameter of its
    own ("lowerdir+", kernel 6.5 and later).

    :param lower: directories, topmost first.
    :param options: each "name" or "name=value".
    :raises OSError: as mount(2); EINVAL with more layers than the kernel takes (500).
    """
    if not upper and len(lower) == 1:
        mount(lower[0], target, None, Flag.BIND)
        mount(lower[0], target, None, Flag.BIND | Flag.REMOUNT | Flag.RDONLY | flags)
        return
    pairs = [("upperdir", upper), ("workdir", work)] if upper else []
    extra = list(options)
    data = ",".join(
        ["lowerdir=" + ":".join(_escape(p) for p in lower), *(f"{k}={_escape(v)}" for k, v in pairs), *extra]
    )
    if len(data) < _MOUNT_DATA_LIMIT:
        mount("overlay", target, "overlay", flags, data)
        return
    _fsconfig_overlay(os.fspath(target), lower, pairs, extra, flags)


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _fsconfig_overlay(
    target: str, lower: Sequence[str], pairs: list[tuple[str, str]], extra: list[str], flags: int
) -> None:
    fs = syscalls.syscall(syscalls.SYS_FSOPEN, ctypes.c_char_p(b"overlay"), ctypes.c_uint(1), path=target)
    try:
        for path in lower:
            _fsconfig(fs, "lowerdir+", path)
        for key, value in pairs:
            _fsconfig(fs, key, value)
        for option in extra:
            key, sep, value = option.partition("=")
            _fsconfig(fs, key, value if sep else None)
        create = ctypes.c_uint(FSCONFIG_CMD_CREATE)
        syscalls.syscall(
            syscalls.SYS_FSCONFIG, ctypes.c_int(fs), create, None, None, ctypes.c_int(0), path=target
        )
        attributes = ctypes.c_uint(int(flags) & 0xF)
        mnt = syscalls.syscall(
            syscalls.SYS_FSMOUNT, ctypes.c_int(fs), ctypes.c_uint(1), attributes, path=target
        )
        with _closing(mnt):
            move_mount(mnt, target)
    finally:
        os.close(fs)


def _fsconfig(fs: int, key: str, value: str | None) -> None:
    command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    raw = None if value is None else ctypes.c_char_p(os.fsencode(value))
    name = ctypes.c_char_p(key.encode())
    args = (ctypes.c_int(fs), ctypes.c_uint(command), name, raw, ctypes.c_int(0))
    syscalls.syscall(syscalls.SYS_FSCONFIG, *args, path=value)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
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
    with _closing(clone_tree(source)) as tree, _closing(os.open(userns, os.O_RDONLY | os.O_CLOEXEC)) as ns:
        attributes = MOUNT_ATTR_IDMAP | (MOUNT_ATTR_RDONLY if readonly else 0)
        set_attributes(tree, attr_set=attributes, userns_fd=ns)
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
