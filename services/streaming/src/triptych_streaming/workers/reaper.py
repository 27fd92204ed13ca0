"""This process as a subreaper: exec processes that the OCI runtime left behind become its children.

Those have owners that wait for them. Others may come too, orphans of containers that share the host's PID
namespace; they are reaped here once nobody did for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal

from triptych_linux import syscalls

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_INTERVAL = 1.0
_GONE = (FileNotFoundError, ProcessLookupError)


def become_subreaper() -> None:
    """Let orphaned descendants be this process's children from now on (prctl(2))."""
    syscalls.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def zombies() -> set[int]:
    """Children that have ended and wait to be reaped.

    :raises OSError: that cannot be told now, for want of descriptors or memory.
    """
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(*_GONE), open(f"/proc/self/task/{task}/children", "rb") as file:
            found.update(pid for pid in map(int, file.read().split()) if _ended(pid))
    return found


def _ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            raw = file.read()
    except _GONE:
        return False
    return raw[raw.rindex(b")") + 2 : raw.rindex(b")") + 3] == b"Z" and not _traced(pid)


def _traced(pid: int) -> bool:
    """Whether a tracer keeps it from whoever waits for it, however long."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return b"\nTracerPid:\t0\n" not in file.read()
    except _GONE:
        return False


def reap(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


async def reap_strays(interval: float = _INTERVAL) -> None:
    """Reap children that were zombies at two looks in a row: an owner would not have taken that long.

    Looks only after a child has ended.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGCHLD, ended.set)
    before: set[int] = set()
    try:
        while True:
            if not before:
                await ended.wait()
            ended.clear()
            await asyncio.sleep(interval)
            try:
                now = zombies()
            except OSError as error:
                log.warning("cannot look for stray children", extra={"error": str(error)})
                ended.set()
                continue
            reap(now & before)
            before = now - before
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)
