"""The end of an ExecSync at its timeout, whatever the OCI runtime has come to by then."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from triptych_runtime.rpc import exec_sync


@pytest.fixture
def command() -> Iterator[subprocess.Popen[bytes]]:
    """What the OCI runtime starts in the container."""
    started = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield started
    started.kill()
    started.wait()


class SlowRuntime:
    """An OCI runtime that is still at it, and writes the PID down while it is waited for."""

    def __init__(self, pid_file: Path, pid: int) -> None:
        self._pid_file = pid_file
        self._pid = pid
        self.closed = False

    async def wait(self) -> int:
        self._pid_file.write_text(str(self._pid))
        await asyncio.sleep(1000)
        return 0

    async def close(self) -> None:
        self.closed = True


async def test_a_command_that_begins_late_is_killed_too(
    command: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_sync, "_REAP_DEADLINE", 0.05)
    runtime = SlowRuntime(tmp_path / "pid", command.pid)
    await exec_sync._end(runtime, tmp_path / "pid", alive=True)  # type: ignore[arg-type]
    assert runtime.closed
    assert command.wait(60) == -signal.SIGKILL


async def test_a_runtime_that_never_begins_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_sync, "_REAP_DEADLINE", 0.05)
    runtime = SlowRuntime(tmp_path / "pid", 0)
    await exec_sync._end(runtime, tmp_path / "another", alive=True)  # type: ignore[arg-type]
    assert runtime.closed
