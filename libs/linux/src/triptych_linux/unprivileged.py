"""Giving up all privileges of the calling thread (credentials(7), capabilities(7)).

Apart from `credentials` since helper programs that must start fast use it; it imports next to nothing.
"""

from __future__ import annotations

import ctypes

from triptych_linux import syscalls
from triptych_linux.syscalls import SYS_CAPSET, SYS_SETGROUPS, SYS_SETRESGID, SYS_SETRESUID

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_MOST_CAPABILITIES = 64


def become(uid: int, gid: int) -> None:
    """Become a user for good, with no groups, no capabilities and no way to any (no_new_privs).

    Also makes the process undumpable; see `credentials.keep_dumpable`.
    """
    try:
        for capability in range(_MOST_CAPABILITIES):
            syscalls.prctl(_PR_CAPBSET_DROP, capability)
    except OSError:
        pass  # EINVAL beyond the kernel's last capability; /proc may not be there to ask for it
    syscalls.syscall(SYS_SETGROUPS, ctypes.c_int(0), None)
    for number, identity in ((SYS_SETRESGID, gid), (SYS_SETRESUID, uid)):
        syscalls.syscall(number, ctypes.c_int(identity), ctypes.c_int(identity), ctypes.c_int(identity))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    syscalls.syscall(SYS_CAPSET, ctypes.byref(header), ctypes.byref(nothing))
    syscalls.prctl(_PR_SET_NO_NEW_PRIVS, 1)
