"""A seccomp filter (seccomp(2)) for the inits of pods: they wait, reap and pass signals on, and that is all.

Who shares a PID namespace with an init may trace it where the users match, and make it call what his own
filter forbids him: so the init's own must be no wider than any. Programs that must start fast use this; it
imports next to nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from triptych_linux import syscalls

_PR_GET_SECCOMP = 21
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
# linux/bpf_common.h and linux/seccomp.h
_LOAD, _IF_EQUAL, _IF_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACES = 0x7E020000
_CLONE3 = 435


class _Machine(NamedTuple):
    arch: int  # AUDIT_ARCH_*
    clone: int
    allowed: str


# What a static init of glibc or musl calls, and what starts it: memory, signals, processes, waiting, and the
# descriptors that it was given. No files are made, no sockets, no namespaces, nobody is traced.
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        56,
        "0-3 5 7-21 23-25 28 32-35 39 44-48 54 55 57-63 72 74 75 77 79 80 87 89 96 97 99 102 104 107-112 121"
        " 124 128 130 131 157 158 186 201 202 204 217-219 228 230-234 247 257 262 267 270 271 273"
        " 281 282 284 286 289-293 302 318 324 332 334 436 439",
    ),
    "aarch64": _Machine(
        0xC00000B7,
        220,
        "19-25 29 35 46 48 56 57 59 61-68 72-74 78-80 82 83 86 93-96 98-101 113 115 123 124 128-139 153-157"
        " 160 163 167 169 172-179 206-212 214-216 221 222 226 233 260 261 278 283 291 293 436 439",
    ),
}


def confine() -> bool:
    """Allow the calling thread, and all that it starts, only that; anything else fails with EPERM.

    The thread must have no_new_privs (`unprivileged.become`).

    :returns: whether it was done: not on a machine whose system calls are not known here, nor by a kernel
        without seccomp.
    :raises OSError: when the kernel refuses.
    """
    machine = _MACHINES.get(os.uname().machine)
    if machine is None or not _available():
        return False
    code = program(machine.arch, machine.clone, _numbers(machine.allowed))
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    syscalls.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(header))
    return True


def _available() -> bool:
    try:
        syscalls.prctl(_PR_GET_SECCOMP)
    except OSError:
        return False
    return True


def program(arch: int, clone: int, allowed: list[int]) -> bytes:
    """The filter: `allowed` and clone(2) without namespaces pass, clone3(2) is ENOSYS, the rest EPERM."""
    tail = [
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_ANY, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    count = len(allowed)
    head = [
        (_LOAD, 0, 0, _ARCH),
        (_IF_EQUAL, 0, 3 + count, arch),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_EQUAL, 2 + count, 0, clone),
        (_IF_EQUAL, 5 + count, 0, _CLONE3),
    ]
    body = [(_IF_EQUAL, count - index + 3, 0, number) for index, number in enumerate(allowed)]
    return b"".join(struct.pack("@HBBI", *one) for one in (*head, *body, *tail))


def _numbers(text: str) -> list[int]:
    """The numbers of a list such as "0-3 5"."""
    found: list[int] = []
    for part in text.split():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
