"""Processes by pidfd."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest
from triptych_linux import pidfd


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
async def test_an_exit_code_outlives_its_reaping(command: str, code: int) -> None:
    child = subprocess.Popen(["sh", "-c", f"read line; {command}"], stdin=subprocess.PIPE)
    fd = os.pidfd_open(child.pid)
    try:
        assert pidfd.exit_code(fd) is None
        waiting = asyncio.create_task(pidfd.wait_exit(fd))
        assert child.stdin is not None
        child.stdin.close()
        await waiting
        child.wait()
        release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
        assert pidfd.exit_code(fd) == (code if release >= (6, 15) else None)
    finally:
        os.close(fd)


def test_a_reaped_leader_is_gone_although_its_session_lives() -> None:
    """Its number is still that of a session then, which kernels tell by EINVAL or ESRCH."""
    script = "sleep 1000 & echo $!; exec >&-"
    leader = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    with leader.stdout:
        member = int(leader.stdout.readline())
    try:
        assert leader.wait(60) == 0
        assert os.getsid(member) == leader.pid
        with pytest.raises(ProcessLookupError):
            pidfd.open_process(leader.pid)
        os.close(pidfd.open_process(member))
    finally:
        os.kill(member, 9)
