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
