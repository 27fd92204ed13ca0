"""Processes by pidfd: identity that cannot be reused, and exits told by the kernel (pidfd_open(2))."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that is the same after a restart of the daemon: a PID and when it started.

    :param start_ticks: field 22 of /proc/PID/stat, clock ticks since boot.
    """

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """:raises ProcessLookupError: when there is no such process."""
        return cls(pid, start_ticks(pid))

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        try:
            fields = _stat(self.pid)
        except ProcessLookupError:
            return False
        return int(fields[19]) == self.start_ticks and fields[0] not in ("Z", "X")

    def open(self) -> int:
        """A pidfd of this very process.

        :raises ProcessLookupError: when it is gone, or its PID belongs to another process now.
        """
        fd = os.pidfd_open(self.pid)
        if not self.alive():
            os.close(fd)
            raise ProcessLookupError(f"process {self.pid} is gone")
        return fd


def _stat(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            raw = file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"process {pid} is gone") from None
    # The command in parentheses may hold anything; what follows the last one is well formed.
    return raw[raw.rindex(b")") + 2 :].decode().split()


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot.

    :raises ProcessLookupError: when there is no such process.
    """
    return int(_stat(pid)[19])


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process of a pidfd; returns False when it is gone already."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


async def wait_exit(pidfd: int) -> None:
    """Wait until the process of a pidfd has ended; does not reap it and does not close `pidfd`."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def ready() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(pidfd, ready)
    try:
        await done
    finally:
        loop.remove_reader(pidfd)
