"""Exits, told by the kernel: inotify on the directory where every conmon writes its exit file.

One watch serves all containers. The process itself is watched by a pidfd as well, for the monitor that was
killed and can write nothing: then the exit code is lost, but not the exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from triptych_linux import pidfd, syscalls
from triptych_linux.pidfd import ProcessIdentity

log = logging.getLogger(__name__)

_IN_CLOSE_WRITE = 0x8
_IN_MOVED_TO = 0x80
_IN_NONBLOCK = os.O_NONBLOCK
_EVENT = struct.Struct("iIII")
#: Seconds by which the exit file may come after the process's end: conmon drains the output first.
FILE_GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended.

    :param code: exit status, 128 + signal for one that a signal ended; None when the monitor was lost.
    :param finished_at: Unix time in nanoseconds.
    """

    container_id: str
    code: int | None
    finished_at: int


class ExitWatch:
    """Watches the exit directory; `on_exit` is called on the event loop, once a container.

    :param on_monitor_lost: told the ID of a container that lives on without its monitor.
    """

    def __init__(
        self,
        directory: Path,
        on_exit: Callable[[Exit], None],
        clock: Callable[[], int],
        on_monitor_lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._on_exit = on_exit
        self._clock = clock
        self._on_monitor_lost = on_monitor_lost
        self._fd = -1
        self._pidfds: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._monitorless: set[str] = set()
        self._monitor_fds: dict[str, int] = {}

    def start(self) -> None:
        """Begin to watch; the directory is made.

        Where inotify has nothing left (pods of root use fs.inotify.max_user_instances up too), the end of
        each monitor tells of its file, some milliseconds later.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._start_inotify()
        except OSError as error:
            log.warning("exits are told by the monitors' ends alone", extra={"error": str(error)})

    def _start_inotify(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = syscalls.check(libc.inotify_init1(ctypes.c_int(_IN_NONBLOCK | os.O_CLOEXEC)))
        raw = ctypes.c_char_p(os.fsencode(self._directory))
        mask = ctypes.c_uint32(_IN_MOVED_TO | _IN_CLOSE_WRITE)
        syscalls.check(libc.inotify_add_watch(ctypes.c_int(self._fd), raw, mask), self._directory)
        asyncio.get_running_loop().add_reader(self._fd, self._ready)

    def stop(self) -> None:
        loop = asyncio.get_running_loop()
        for container_id in [*self._pidfds, *self._timers]:
            self.forget(container_id)
        if self._fd >= 0:
            loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def add(self, container_id: str, process: ProcessIdentity, monitor: int = 0) -> None:
        """Watch a container that runs; one that has ended already is reported at once.

        :param monitor: PID of its conmon: when that is gone too, no exit file is awaited.
        """
        if container_id in self._pidfds or self._report_file(container_id):
            return
        if monitor:
            self._watch_monitor(container_id, monitor)
        try:
            fd = process.open()
        except ProcessLookupError:
            self._ended(container_id)
            return
        self._pidfds[container_id] = fd
        asyncio.get_running_loop().add_reader(fd, self._ended, container_id)
        if container_id in self._monitorless:
            self._on_monitor_lost(container_id)

    def forget(self, container_id: str) -> None:
        """Stop watching a container."""
        self._close(self._pidfds, container_id)
        self._close(self._monitor_fds, container_id)
        self._monitorless.discard(container_id)
        timer = self._timers.pop(container_id, None)
        if timer is not None:
            timer.cancel()

    def ending(self, container_id: str) -> bool:
        """Whether a container's first process has ended and its exit file is awaited."""
        return container_id in self._timers

    def signal(self, container_id: str, number: int) -> bool:
        """Signal a watched container's first process; False when it is gone."""
        fd = self._pidfds.get(container_id, -1)
        return fd >= 0 and pidfd.send_signal(fd, number)

    def remove_file(self, container_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._directory / container_id).unlink()

    def _ready(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, offset)
            name = (
                data[offset + _EVENT.size : offset + _EVENT.size + length]
                .rstrip(b"\0")
                .decode(errors="replace")
            )
            offset += _EVENT.size + length
            if mask & 0x4000:  # IN_Q_OVERFLOW: some were dropped, so look at all
                for container_id in [*self._pidfds, *self._timers]:
                    self._report_file(container_id)
            elif name in self._pidfds or name in self._timers:
                self._report_file(name)

    def _ended(self, container_id: str) -> None:
        """The process has ended; its exit file follows when conmon has drained its output."""
        self._close(self._pidfds, container_id)
        if self._report_file(container_id) or container_id in self._timers:
            return
        loop = asyncio.get_running_loop()
        grace = 0 if container_id in self._monitorless else FILE_GRACE
        self._timers[container_id] = loop.call_later(grace, self._lost, container_id)

    def _watch_monitor(self, container_id: str, monitor: int) -> None:
        """Be told when the monitor ends as well: no exit file comes then."""
        try:
            fd = pidfd.open_process(monitor)
        except ProcessLookupError:
            self._monitorless.add(container_id)
            return
        self._monitor_fds[container_id] = fd
        asyncio.get_running_loop().add_reader(fd, self._monitor_ended, container_id)

    def _monitor_ended(self, container_id: str) -> None:
        """It has written the exit file, or never will."""
        self._close(self._monitor_fds, container_id)
        if self._report_file(container_id):
            return
        self._monitorless.add(container_id)
        if container_id in self._timers:
            self._lost(container_id)
        elif not pidfd.has_ended(self._pidfds[container_id]):
            self._on_monitor_lost(container_id)

    def _close(self, fds: dict[str, int], container_id: str) -> None:
        fd = fds.pop(container_id, -1)
        if fd >= 0:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def _lost(self, container_id: str) -> None:
        if not self._report_file(container_id):
            self._report(Exit(container_id, None, self._clock()))

    def _report_file(self, container_id: str) -> bool:
        found = read_exit(self._directory, container_id)
        if found is not None:
            self._report(found)
        return found is not None

    def _report(self, found: Exit) -> None:
        self.forget(found.container_id)
        self._on_exit(found)


def read_exit(directory: Path, container_id: str) -> Exit | None:
    """The exit that conmon recorded, None when there is none (yet)."""
    path = directory / container_id
    try:
        text = path.read_bytes()
        modified = path.stat().st_mtime_ns
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        code = int(text)
    except ValueError:
        return None
    return Exit(container_id, code, modified)
