"""The subprocess gate."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from triptych_linux import process
from triptych_linux.errors import ProcessFailed, ProcessTimeout, ProgramMissing


async def test_output_and_status() -> None:
    done = await process.run(["sh", "-c", "cat; echo err >&2"], deadline=5, step="t", stdin=b"x" * 300_000)
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 300_000, b"err\n")


async def test_failure_names_step_and_output() -> None:
    with pytest.raises(ProcessFailed, match=r"make it: exit status 3: broken"):
        await process.run(["sh", "-c", "echo broken >&2; exit 3"], deadline=5, step="make it")


async def test_signal_is_named() -> None:
    done = await process.run(["sh", "-c", "kill -TERM $$"], deadline=5, step="t", check=False)
    assert (done.returncode, done.how) == (-15, "killed by SIGTERM")


async def test_missing_program() -> None:
    with pytest.raises(ProgramMissing, match="/no/such/program"):
        await process.run(["/no/such/program"], deadline=5, step="t")


async def test_deadline_kills_the_group() -> None:
    before = time.monotonic()
    script = "sleep 100 & echo $!; wait"
    child = await process.spawn(["sh", "-c", script], step="t", stdout=process.PIPE)
    assert child.popen.stdout is not None
    grandchild = int(child.popen.stdout.readline())
    await child.close()
    for _ in range(100):
        if not os.path.exists(f"/proc/{grandchild}") or "Z" in open(f"/proc/{grandchild}/stat").read():
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the grandchild lives")
    with pytest.raises(ProcessTimeout, match="nap: no end after 0.2 s"):
        await process.run(["sleep", "100"], deadline=0.2, step="nap")
    assert time.monotonic() - before < 60


async def test_cancelled_caller_leaves_no_process() -> None:
    async def found() -> bytes:
        argv = ["pgrep", "-f", "sleep 97[.]531"]
        return (await process.run(argv, deadline=60, step="t", check=False)).stdout

    task = asyncio.create_task(process.run(["sleep", "97.531"], deadline=90, step="t"))
    while not await found():
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await found() == b""


async def test_a_background_child_that_holds_the_pipe_does_not_hold_the_call() -> None:
    before = time.monotonic()
    done = await process.run(["sh", "-c", "sleep 100 & echo $!"], deadline=90, step="t")
    os.kill(int(done.stdout), signal.SIGKILL)  # it lives: the call did not wait for it
    assert time.monotonic() - before < 60


async def test_output_limit() -> None:
    done = await process.run(["head", "-c", "500000", "/dev/zero"], deadline=5, step="t", max_output=1000)
    assert len(done.stdout) == 1000
