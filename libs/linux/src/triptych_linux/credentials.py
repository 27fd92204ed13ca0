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

_X86 = syscalls._X86
_SYS_SETGROUPS = 116 if _X86 else 159
_SYS_SETRESUID = 117 if _X86 else 147
_SYS_SETRESGID = 119 if _X86 else 149
_SYS_CAPSET = 126 if _X86 else 91
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
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
        _ids(_SYS_SETRESGID, _KEEP, gid, _KEEP)
        try:
            _ids(_SYS_SETRESUID, _KEEP, uid, _KEEP)
            try:
                yield
            finally:
                _ids(_SYS_SETRESUID, _KEEP, 0, _KEEP)
        finally:
            _ids(_SYS_SETRESGID, _KEEP, 0, _KEEP)


def become(uid: int, gid: int) -> None:
    """Become a user for good, with no groups, no capabilities and no way to any (no_new_privs)."""
    # The kernel answers EINVAL beyond its last capability; /proc may not be there to ask.
    with contextlib.suppress(OSError):
        for capability in range(64):
            syscalls.prctl(_PR_CAPBSET_DROP, capability)
    syscalls.syscall(_SYS_SETGROUPS, ctypes.c_int(0), None)
    _ids(_SYS_SETRESGID, gid, gid, gid)
    _ids(_SYS_SETRESUID, uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    syscalls.syscall(_SYS_CAPSET, ctypes.byref(header), ctypes.byref(nothing))
    syscalls.prctl(_PR_SET_NO_NEW_PRIVS, 1)
