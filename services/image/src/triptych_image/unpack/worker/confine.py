"""How the kernel holds a worker: namespaces for all of them, then a root and capabilities for each.

The process that stays sits in own mount, network, IPC, UTS and PID namespaces with an empty, read-only root.
A child for a layer enters that layer's directory, given as a descriptor of a detached mount with `nodev`,
`nosuid` and `noexec`, and keeps the few capabilities that unpacking takes; system calls that it has no
use for are denied (`seccomp`). So a parser that was taken over by its input can write into this one
directory: it sees no other file, process or network, and a device node that it makes cannot be opened.
"""

from __future__ import annotations

import ctypes
import os
import resource

from triptych_image.unpack.worker import seccomp

_libc = ctypes.CDLL(None, use_errno=True)
# Looked up and built before the fork, since every child has the same.
_prctl, _capset = _libc.prctl, _libc.capset
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}
_MS_RDONLY_NO_ANYTHING = 1 | 2 | 4 | 8
_MS_REC_PRIVATE = 16384 | (1 << 18)
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAP_V3 = 0x20080522
_LAST_CAP = 63

CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP = 0, 1, 3, 4, 27, 31
UNPACK_CAPABILITIES = (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP)
READ_CAPABILITIES = (DAC_OVERRIDE,)


def _words(capabilities: tuple[int, ...]) -> ctypes.Array[ctypes.c_uint32]:
    """As effective and permitted, low halves before high ones; nothing is inheritable."""
    mask = sum(1 << capability for capability in capabilities)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    return (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)


_CAP_HEAD = (ctypes.c_uint32 * 2)(_CAP_V3, 0)
_CAP_WORDS: dict[tuple[int, ...], ctypes.Array[ctypes.c_uint32]] = {
    keep: _words(keep) for keep in ((), READ_CAPABILITIES, UNPACK_CAPABILITIES)
}


def _check(result: int, step: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{step}: {os.strerror(number)}")


def leave_host() -> None:
    """Give the process an empty root, and no way to capabilities that no child needs.

    It is in a mount namespace of its own already.

    :raises OSError: naming the step.
    """
    _check(_libc.mount(None, b"/", None, _MS_REC_PRIVATE, None), "make / private")
    # Any directory that exists everywhere will do, since the old root goes away.
    _check(_libc.mount(b"none", b"/proc", b"tmpfs", 0, b"size=4k,mode=555"), "mount an empty root")
    os.chdir("/proc")
    _check(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "detach the old root")
    os.chdir("/")
    _check(_libc.mount(None, b"/", None, _MS_RDONLY_NO_ANYTHING | 32, None), "make / read-only")
    _bound(tuple(number for number in range(_LAST_CAP) if number not in UNPACK_CAPABILITIES))


def die_with_parent() -> None:
    """Be killed when the parent ends; no core dumps, no ptrace by siblings."""
    _check(_prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl")
    _check(_prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def confine(root: int | None, keep: tuple[int, ...], memory: int) -> None:
    """Lock the calling process into a directory for the rest of its life.

    :param root: descriptor of the directory, closed afterwards; None for the empty root.
    :param keep: capabilities left, one of the sets of this module.
    :param memory: bytes of address space.
    :raises OSError: naming the step.
    """
    die_with_parent()
    os.umask(0)
    if root is not None:
        os.fchdir(root)
        os.chroot(".")
        os.chdir("/")
        os.close(root)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    _bound(tuple(number for number in UNPACK_CAPABILITIES if number not in keep))
    _check(_capset(_CAP_HEAD, _CAP_WORDS[keep]), "capset")
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _check(_prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")
    seccomp.install(_prctl)


def _bound(capabilities: tuple[int, ...]) -> None:
    """Take capabilities out of what the process and its children can ever get."""
    for capability in capabilities:
        if _prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # EINVAL: the kernel has no more of them
