"""ExecSync with an OCI runtime that copies the command's output itself, as runc does.

Its exec ends only when everybody who holds the output has let go, so that a background child of the command
would hold the call. Therefore the command itself is watched as well; how it ended, the kernel tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from triptych_linux import pidfd, process
from triptych_linux.exits import Exits

from triptych_runtime.errors import RuntimeFailed

_POLL = (0.002, 0.05)
#: The kernel tells once the runtime has reaped the command, which takes it a moment.
_REAPING = 5


async def wait_for_command(
    child: process.Child, pid_file: Path, exits: Exits, drain: float, what: str
) -> int:
    """Wait for the runtime's exec, or for the command and `drain` seconds more.

    :param exits: recorded since before the exec began.
    :param what: begins the message of an error.
    :returns: the exit code of the command.
    :raises RuntimeFailed: when only the command has ended, and the kernel does not tell how.
    """
    ending = asyncio.ensure_future(child.wait())
    command = asyncio.ensure_future(_command(pid_file, exits))
    try:
        await asyncio.wait((ending, command), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            await asyncio.wait((ending,), timeout=max(drain, 0.1))
        if ending.done():
            return ending.result()
        code = command.result()
        if code is None:
            raise RuntimeFailed(
                f"{what}: it has ended, but what it left running holds its output: its exit code is lost",
                hint="redirect the output of what it starts in the background",
            )
        return code
    finally:
        for task in (ending, command):
            task.cancel()
        await asyncio.gather(ending, command, return_exceptions=True)


async def _command(pid_file: Path, exits: Exits) -> int | None:
    """Wait for the end of the command, whose PID the runtime writes down; its exit code where it is told."""
    pause, most = _POLL
    while True:
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int(pid_file.read_text())  # noqa: ASYNC240 - a few bytes of tmpfs
            break
        await asyncio.sleep(pause)
        pause = min(pause * 2, most)
    try:
        fd = pidfd.open_process(pid)
    except ProcessLookupError:  # it is reaped already
        return exits.code(pid)
    try:
        await pidfd.wait_exit(fd)
        for _ in range(_REAPING):
            code = exits.code(pid)
            if code is None:
                code = pidfd.exit_code(fd)
            if code is not None:
                return code
            await asyncio.sleep(most)
        return None
    finally:
        os.close(fd)
