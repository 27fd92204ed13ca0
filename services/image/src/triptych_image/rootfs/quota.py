"""Size limits of writable layers by project quota (ext4 and XFS mounted with `prjquota`)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Collection
from pathlib import Path

from triptych_linux import syscalls

from triptych_image.errors import QuotaUnsupported

_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_FSXATTR = struct.Struct("IIIII8x")
_PROJINHERIT = 0x200
_Q_GETQUOTA = 0x800007
_Q_SETQUOTA = 0x800008
_PROJECT_QUOTA = 2
_QIF_BLIMITS = 1
_BLOCK = 1024
FIRST_PROJECT = 0x54000000
"""Project numbers of triptych begin here ("T"), far from those that people give by hand."""
_PROJECTS = 1 << 24


class _DqBlk(ctypes.Structure):
    """struct if_dqblk of <linux/quota.h>; limits in KiB."""

    _fields_ = (
        ("bhardlimit", ctypes.c_uint64),
        ("bsoftlimit", ctypes.c_uint64),
        ("curspace", ctypes.c_uint64),
        ("ihardlimit", ctypes.c_uint64),
        ("isoftlimit", ctypes.c_uint64),
        ("curinodes", ctypes.c_uint64),
        ("btime", ctypes.c_uint64),
        ("itime", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
    )


class Projects:
    """Gives out project numbers, each after the one before and not the lowest that is free.

    What was removed counts against its number until its last file is gone, which takes a while; and two that
    are made at once must not share one.

    :param start: any number, another one with each start of the daemon.
    """

    def __init__(self, start: int) -> None:
        self._next = start % _PROJECTS

    def take(self, taken: Collection[int]) -> int:
        """A number that is not `taken`, and was not given out lately."""
        while True:
            project = FIRST_PROJECT + self._next
            self._next = (self._next + 1) % _PROJECTS
            if project not in taken:
                return project


def _command(operation: int) -> ctypes.c_uint:
    return ctypes.c_uint(operation << 8 | _PROJECT_QUOTA)


def limit(directory: Path, project: int, size: int) -> None:
    """Put an empty directory into a project of its own, of at most `size` bytes.

    :raises QuotaUnsupported: where the file system has no project quota.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _set_limit(fd, project, size)
        _set_project(fd, project)
    except OSError as error:
        raise QuotaUnsupported(
            f"a size limit of the writable layer: {directory} has no project quota ({error.strerror})",
            hint="mount the file system with prjquota",
        ) from error
    finally:
        os.close(fd)


def release(directory: Path, project: int) -> None:
    """Drop the limit of a project that nothing is left of. Errors are not worth a failure."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _set_limit(fd, project, 0)
    except OSError:
        pass
    finally:
        os.close(fd)


def usage(directory: Path, project: int) -> tuple[int, int]:
    """Bytes and inodes that a project uses, as the kernel counts them.

    :raises OSError: where there is no quota.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        block = _DqBlk()
        _quotactl(fd, _Q_GETQUOTA, project, block)
        return block.curspace, block.curinodes
    finally:
        os.close(fd)


def _set_limit(fd: int, project: int, size: int) -> None:
    block = _DqBlk()
    block.bhardlimit = block.bsoftlimit = (size + _BLOCK - 1) // _BLOCK
    block.valid = _QIF_BLIMITS
    _quotactl(fd, _Q_SETQUOTA, project, block)


def _quotactl(fd: int, operation: int, project: int, block: _DqBlk) -> None:
    syscalls.syscall(
        syscalls.SYS_QUOTACTL_FD,
        ctypes.c_uint(fd),
        _command(operation),
        ctypes.c_uint(project),
        ctypes.byref(block),
    )


def _set_project(fd: int, project: int) -> None:
    raw = bytearray(_FSXATTR.size)
    fcntl.ioctl(fd, _FSGETXATTR, raw)
    flags, extent, count, _, cow = _FSXATTR.unpack(raw)
    if flags & _PROJINHERIT and project == 0:
        flags &= ~_PROJINHERIT
    fcntl.ioctl(fd, _FSSETXATTR, _FSXATTR.pack(flags | _PROJINHERIT, extent, count, project, cow))
