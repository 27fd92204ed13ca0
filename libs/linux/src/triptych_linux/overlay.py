"""Mounting overlayfs (Documentation/filesystems/overlayfs.rst), with more layers than fit on a page too."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable, Sequence

from triptych_linux import syscalls
from triptych_linux.mounts import Flag, closing, mount, move_mount

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

# fs/namespace.c copies one page of mount(2) data; a longer option string needs fsconfig(2).
_MOUNT_DATA_LIMIT = 4000


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
    own ("lowerdir+", overlayfs.rst); a kernel without that (Debian 12's 6.1 has it not) is
    told the layers by descriptors, whose names are short.

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
    data = _overlay_data(lower, pairs, extra)
    if len(data) < _MOUNT_DATA_LIMIT:
        mount("overlay", target, "overlay", flags, data)
        return
    try:
        _fsconfig_overlay(os.fspath(target), lower, pairs, extra, flags)
    except OSError as error:
        if error.errno != errno.EINVAL or not _overlay_by_descriptors(target, lower, pairs, extra, flags):
            raise


def _overlay_data(lower: Iterable[str], pairs: Iterable[tuple[str, str]], extra: Iterable[str]) -> str:
    layers = "lowerdir=" + ":".join(map(_escape, lower))
    return ",".join([layers, *(f"{key}={_escape(value)}" for key, value in pairs), *extra])


def _overlay_by_descriptors(
    target: str | os.PathLike[str],
    lower: Sequence[str],
    pairs: list[tuple[str, str]],
    extra: list[str],
    flags: int,
) -> bool:
    """Mount with layers named "/proc/self/fd/N"; False when these are too many as well."""
    with contextlib.ExitStack() as stack:
        names = []
        for path in lower:
            fd = stack.enter_context(closing(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)))
            names.append(f"/proc/self/fd/{fd}")
        data = _overlay_data(names, pairs, extra)
        if len(data) >= _MOUNT_DATA_LIMIT:
            return False
        mount("overlay", target, "overlay", flags, data)
        return True


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
        with closing(mnt):
            move_mount(mnt, target)
    finally:
        os.close(fs)


def _fsconfig(fs: int, key: str, value: str | None) -> None:
    command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    raw = None if value is None else ctypes.c_char_p(os.fsencode(value))
    name = ctypes.c_char_p(key.encode())
    args = (ctypes.c_int(fs), ctypes.c_uint(command), name, raw, ctypes.c_int(0))
    syscalls.syscall(syscalls.SYS_FSCONFIG, *args, path=value)
