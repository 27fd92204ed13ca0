"""What a process under the filter of pod inits may do, and what it may not though it is root."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from triptych_linux import initfilter

pytestmark = pytest.mark.skipif(
    os.uname().machine not in ("x86_64", "aarch64"), reason="no numbers for this machine"
)

_PREPARE = """
import ctypes, errno, os, signal, socket, subprocess, sys
from triptych_linux import initfilter, syscalls
syscalls.prctl(38, 1)
assert initfilter.confine()
def refused(work):
    try:
        work()
    except OSError as error:
        return error.errno
    return 0
"""


def test_the_lists_are_of_numbers_in_order() -> None:
    for machine in initfilter._MACHINES.values():
        numbers = initfilter._numbers(machine.allowed)
        assert numbers == sorted(set(numbers))
        assert numbers[-1] < 512
        assert machine.clone not in numbers


def run(script: str) -> list[str]:
    """What a confined Python prints."""
    argv = [sys.executable, "-c", _PREPARE + script]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()


def test_what_an_init_does_is_allowed() -> None:
    script = """
print(subprocess.run(["sh", "-c", "exit 3"]).returncode)
pid = os.fork()
if pid == 0:
    signal.pause()
os.kill(pid, signal.SIGTERM)
print(os.waitpid(pid, 0)[1])
print(signal.sigtimedwait([signal.SIGUSR1], 0))
print(os.getpgid(0) == os.getpgrp(), os.getsid(0) >= 0)  # 0: no leader that this namespace knows
"""
    assert run(script) == ["3", "15", "None", "True True"]


def test_anything_else_is_refused() -> None:
    script = """
print(refused(lambda: syscalls.unshare(0x04000000)))
print(refused(lambda: syscalls.mount("none", "/", None, 1 << 18, None)))
tree = syscalls.SYS_OPEN_TREE
print(refused(lambda: syscalls.syscall(tree, ctypes.c_int(-100), b"/", ctypes.c_int(0))))
print(refused(socket.socket))
print(refused(lambda: os.setresuid(0, 0, 0)))
print(refused(lambda: os.mkdir("/tmp/never")))
clone = 56 if os.uname().machine == "x86_64" else 220
flags = ctypes.c_ulong(0x10000000 | signal.SIGCHLD)
print(refused(lambda: syscalls.syscall(clone, flags, None, None, None, None)))
print(refused(lambda: syscalls.syscall(435, None, ctypes.c_size_t(0))) == errno.ENOSYS)
"""
    assert run(script) == ["1"] * 7 + ["True"]
