"""System calls that the standard library of Python 3.11 lacks, by ctypes.

Every function raises `OSError` with the kernel's errno and the path concerned. Numbers are those of the
generic table, equal on x86_64 and arm64 for the calls used here (include/uapi/asm-generic/unistd.h),
except where `_NR` says otherwise.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_X86 = os.uname().machine == "x86_64"

SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_MOUNT_SETATTR = 442
SYS_OPENAT2 = 437
SYS_QUOTACTL_FD = 443
SYS_PIVOT_ROOT = 155 if _X86 else 41
SYS_SETGROUPS = 116 if _X86 else 159
SYS_SETRESUID = 117 if _X86 else 147
SYS_SETRESGID = 119 if _X86 else 149
SYS_CAPSET = 126 if _X86 else 91

_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def check(result: int, path: str | os.PathLike[str] | None = None) -> int:
    """Return `result`, or raise the `OSError` of errno when it is negative."""
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), os.fspath(path) if path is not None else None)
    return result


def syscall(number: int, *args: object, path: str | os.PathLike[str] | None = None) -> int:
    """Call `number` with ctypes-convertible `args`; raise `OSError` on failure."""
    return check(_libc.syscall(ctypes.c_long(number), *args), path)


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None) -> None:
    """mount(2)."""
    check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            None if fstype is None else fstype.encode(),
            flags,
            None if data is None else os.fsencode(data),
        ),
        target,
    )


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    check(_libc.umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    """unshare(2): affects the calling thread only."""
    check(_libc.unshare(ctypes.c_int(flags)))


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2): affects the calling thread only."""
    check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(nstype)))


def sethostname(name: str) -> None:
    """sethostname(2) in the calling thread's UTS namespace."""
    raw = name.encode()
    check(_libc.sethostname(ctypes.c_char_p(raw), ctypes.c_size_t(len(raw))))


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2)."""
    unsigned = ctypes.c_ulong
    return check(
        _libc.prctl(ctypes.c_int(option), unsigned(arg2), unsigned(arg3), unsigned(arg4), unsigned(arg5))
    )


def syncfs(fd: int) -> None:
    """syncfs(2): flush the file system that holds `fd`."""
    check(_libc.syncfs(ctypes.c_int(fd)))
