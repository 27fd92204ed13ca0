"""How processes of others ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from triptych_linux import exits


def _grandchild(script: str) -> int:
    """Start a process that is not our child, and return its PID."""
    code = f"import subprocess; print(subprocess.Popen(['sh', '-c', {script!r}]).pid)"
    return int(subprocess.check_output([sys.executable, "-c", code]))


async def _told(recorded: exits.Exits, pid: int) -> int:
    async with asyncio.timeout(30):
        while (code := recorded.code(pid)) is None:
            await asyncio.sleep(0.01)
    return code


async def _skip_unless_told() -> None:
    """In a PID namespace of its own the kernel says nothing."""
    with exits.record() as recorded:
        child = subprocess.Popen(["true"])
        child.wait()
        if recorded.code(child.pid) is None:
            pytest.skip("the kernel tells no exits here")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_exit_codes_and_signals_are_told() -> None:
    await _skip_unless_told()
    with exits.record() as recorded:
        assert await _told(recorded, _grandchild("exec >&-; exit 7")) == 7
        victim = _grandchild("exec >&-; exec sleep 1000")
        assert recorded.code(victim) is None
        os.kill(victim, signal.SIGKILL)
        assert await _told(recorded, victim) == 128 + signal.SIGKILL


def test_many_ends_are_kept_within_bounds() -> None:
    recorded = exits.Exits(None)
    for pid in range(1, 5000):
        recorded._keep(pid, 0)
    assert recorded.code(4999) == 0
    assert recorded.code(1) is None


async def test_without_the_right_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "_connect", lambda: None)
    with exits.record() as recorded:
        assert recorded.code(os.getpid()) is None
