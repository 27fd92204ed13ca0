"""Opening paths inside a directory whose contents are not to be trusted."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from triptych_linux import syscalls

_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: Path, path: str, flags: int = 0) -> int:
    """An `O_PATH` descriptor of a path below a directory, through no symlink (openat2(2)).

    :param path: relative; "" for the directory itself.
    :param flags: more than `O_PATH` and `O_NOFOLLOW`.
    :raises OSError: ELOOP at a symlink, ENOENT, ENOTDIR, EXDEV.
    """
    flags |= os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if not path:
        return top
    try:
        how = _OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
        return syscalls.syscall(
            syscalls.SYS_OPENAT2,
            ctypes.c_int(top),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
            path=path,
        )
    finally:
        os.close(top)
