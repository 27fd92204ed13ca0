"""Pipes of processes in user namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from triptych_linux.stdio import give_pipes

pytestmark = pytest.mark.integration
FIRST = 200_000
# It tells when it is in its user namespace, and ends with its input.
_INSIDE = "import ctypes, sys; ctypes.CDLL(None).unshare(0x10000000); print(flush=True); sys.stdin.read()"


@pytest.fixture
def mapped() -> Iterator[int]:
    """A process in a user namespace."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _INSIDE], **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text(f"0 {FIRST} 1000")
        yield process.pid
        process.stdin.close()


def owner(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_uid, status.st_gid


def test_pipes_belong_to_the_user_inside(mapped: int) -> None:
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_WRONLY)
    try:
        mine, before = owner(read), owner(null)
        give_pipes([read], os.getpid(), 5, 7)
        assert owner(read) == mine
        give_pipes([f"/proc/self/fd/{write}", null], mapped, 5, 7)
        assert (owner(read), owner(null)) == ((FIRST + 5, FIRST + 7), before)
        give_pipes([read], mapped, 6, 1000)  # the group is not one of the user namespace
        assert owner(read) == (FIRST + 6, FIRST + 7)
        give_pipes([read], 1 << 22, 8, 8)
        assert owner(read) == (FIRST + 6, FIRST + 7)
    finally:
        for fd in (read, write, null):
            os.close(fd)
