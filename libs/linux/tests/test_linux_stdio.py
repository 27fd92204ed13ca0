"""Pipes of processes in user namespaces."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from triptych_linux.stdio import empty_pipe, give_pipes, keep_null

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


def test_the_null_device_stays_the_nodes(tmp_path: Path) -> None:
    null, other = tmp_path / "null", tmp_path / "zero"
    for path, minor in ((null, 3), (other, 5)):
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, minor))
        os.chown(path, FIRST, FIRST)
        keep_null(str(path))
    status = null.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o666)
    assert other.stat().st_uid == FIRST


def test_an_empty_pipe_is_at_its_end() -> None:
    with empty_pipe() as end:
        assert os.read(end, 1) == b""
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(end)
