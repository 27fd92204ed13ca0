"""Credentials of the calling thread only (credentials(7), capabilities(7)).

glibc's setresuid and friends change every thread of a process; the raw system calls change one. Use them
in a thread made for the work. They also make the process undumpable as a whole, which `keep_dumpable`
undoes.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

from triptych_linux import syscalls
from triptych_linux.syscalls import SYS_SETRESGID, SYS_SETRESUID

_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_KEEP = -1


def _ids(number: int, real: int, effective: int, saved: int) -> None:
    syscalls.syscall(number, ctypes.c_int(real), ctypes.c_int(effective), ctypes.c_int(saved))


@contextlib.contextmanager
def keep_dumpable() -> Iterator[None]:
    """Give the process its dumpable flag back afterwards (prctl(2), PR_SET_DUMPABLE)."""
    before = syscalls.prctl(_PR_GET_DUMPABLE)
    try:
        yield
    finally:
        if before == 1 != syscalls.prctl(_PR_GET_DUMPABLE):
            syscalls.prctl(_PR_SET_DUMPABLE, 1)


@contextlib.contextmanager
def effective_user(uid: int, gid: int) -> Iterator[None]:
    """Act as another user for a while; the calling thread must be root and is again afterwards."""
    with keep_dumpable():
        _ids(SYS_SETRESGID, _KEEP, gid, _KEEP)
        try:
            _ids(SYS_SETRESUID, _KEEP, uid, _KEEP)
            try:
                yield
            finally:
                _ids(SYS_SETRESUID, _KEEP, 0, _KEEP)
        finally:
            _ids(SYS_SETRESGID, _KEEP, 0, _KEEP)
