"""Processes by pidfd: identity that cannot be reused, and exits told by the kernel (pidfd_open(2))."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import signal
import struct
from dataclasses import dataclass

# struct pidfd_info of include/uapi/linux/pidfd.h: mask, cgroup ID, 11 IDs, exit status.
_INFO = struct.Struct("=QQ11Ii")
_INFO_EXIT = 1 << 3
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11


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
        fd = open_process(self.pid)
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


def open_process(pid: int) -> int:
    """A pidfd of whoever has the PID now.

    :raises ProcessLookupError: when nobody has.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # It was reaped, and its number goes on as that of a session or group. ESRCH in newer kernels.
        if error.errno == errno.EINVAL:
            raise ProcessLookupError(errno.ESRCH, f"process {pid} is gone") from None
        raise


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process of a pidfd; returns False when it is gone already."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def has_ended(pidfd: int) -> bool:
    """Whether the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def exit_code(pidfd: int) -> int | None:
    """How the process of a pidfd ended, also when somebody else has reaped it: 0 to 255, 128 + signal.

    None when it lives, or the kernel does not tell (before Linux 6.15, PIDFD_INFO_EXIT).
    """
    info = bytearray(_INFO.pack(_INFO_EXIT, 0, *[0] * 11, 0))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    found = _INFO.unpack(info)
    if not found[0] & _INFO_EXIT:
        return None
    code = os.waitstatus_to_exitcode(found[-1])
    return code if code >= 0 else 128 - code


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


async def kill(identity: ProcessIdentity) -> None:
    """SIGKILL a process and wait until it has ended, however long; nothing happens when it is gone."""
    try:
        fd = identity.open()
    except ProcessLookupError:
        return
    try:
        send_signal(fd, signal.SIGKILL)
        await wait_exit(fd)
    finally:
        os.close(fd)
