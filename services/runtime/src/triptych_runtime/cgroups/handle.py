"""One cgroup in all hierarchies, whatever the layout of the node."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triptych_runtime.cgroups.errors import CgroupFailed
from triptych_runtime.cgroups.layout import SYSTEMD, Layout, Mode

_TRACKERS = ("freezer", "pids", "memory", "cpu", SYSTEMD)
"""v1 hierarchies in the order in which they are asked for the processes of a cgroup."""
_FREEZE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The cgroup of a container or a pod. It need not exist.

    Methods that are not coroutines read or write a few small files and may be called on the event
    loop where a microsecond file read is fine; what can wait is a coroutine and runs in a thread.

    :param path: where it is in each hierarchy, "/kubepods/pod1/<container id>".
    :param v1: its directory for each v1 controller (and `name=systemd`); empty in UNIFIED mode.
    :param unified: its directory in the v2 hierarchy, None in LEGACY mode. In HYBRID mode it has no
        controllers but PSI, and only if the OCI runtime puts processes there.
    """

    path: str
    mode: Mode
    v1: Mapping[str, str] = field(repr=False)
    unified: str | None = field(repr=False)

    @classmethod
    def at(cls, layout: Layout, path: str) -> Cgroup:
        """The cgroup at one path in all hierarchies."""
        tail = path.lstrip("/")
        v1 = {name: os.path.join(mount, tail) for name, mount in layout.v1.items()}
        unified = os.path.join(layout.unified, tail) if layout.unified is not None else None
        return cls(path, layout.mode, v1, unified)

    @classmethod
    def of_process(cls, layout: Layout, pid: int) -> Cgroup:
        """The cgroup that a process is in, from /proc/PID/cgroup; hierarchies may differ.

        :raises ProcessLookupError: when there is no such process.
        """
        try:
            text = Path(f"/proc/{pid}/cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessLookupError(f"process {pid} is gone") from None
        v1: dict[str, str] = {}
        unified: str | None = None
        path = "/"
        for line in text.splitlines():
            number, names, where = line.split(":", 2)
            if number == "0" and layout.unified is not None:
                inside = layout.strip_root(layout.unified, where)
                unified = os.path.join(layout.unified, inside.lstrip("/"))
                path = inside if layout.mode is Mode.UNIFIED else path
                continue
            for name in names.split(","):
                mount = layout.v1.get(name)
                if mount is not None:
                    inside = layout.strip_root(mount, where)
                    v1[name] = os.path.join(mount, inside.lstrip("/"))
                    path = inside if name == "memory" else path
        return cls(path, layout.mode, v1, unified)

    def directory(self, controller: str) -> str | None:
        """Its directory in the hierarchy that has a controller; None if no hierarchy has it."""
        return self.unified if self.mode is Mode.UNIFIED else self.v1.get(controller)

    @property
    def directories(self) -> tuple[str, ...]:
        """Its directory in each hierarchy, each once."""
        seen = dict.fromkeys(self.v1.values())
        if self.unified is not None:
            seen[self.unified] = None
        return tuple(seen)

    @property
    def tracker(self) -> str:
        """Its directory in the hierarchy that is asked for its processes."""
        if self.mode is Mode.UNIFIED and self.unified is not None:
            return self.unified
        for name in _TRACKERS:
            if name in self.v1:
                return self.v1[name]
        return self.directories[0]

    def exists(self) -> bool:
        """Whether it exists in the hierarchy that tracks its processes."""
        return os.path.isdir(self.tracker)

    def procs(self, *, recursive: bool = True) -> list[int]:
        """PIDs of its processes, those of its child cgroups too; none when it does not exist."""
        found = _read_pids(self.tracker)
        if recursive:
            for child in _children(self.tracker):
                found += _read_pids(child)
        return found

    def oom_kills(self) -> int | None:
        """How many of its processes the kernel killed for its memory limit since it was made.

        Read it before the cgroup is removed. None when it is gone or the kernel does not count.
        """
        directory = self.directory("memory")
        if directory is None:
            return None
        name = "memory.events" if self.mode is Mode.UNIFIED else "memory.oom_control"
        try:
            text = read(directory, name)
        except OSError:
            return None
        for line in text.splitlines():
            key, _, value = line.partition(b" ")
            if key == b"oom_kill":
                return int(value)
        return None

    async def kill(self, *, deadline: float = 5.0) -> None:
        """SIGKILL every process in it and below it, and wait until none is left.

        Uses cgroup.kill where the kernel has it, else freezes so that nothing can fork meanwhile.

        :raises CgroupFailed: when processes are left at the deadline (in state D, as a rule).
        """
        await asyncio.to_thread(self._kill, deadline)

    async def remove(self, *, deadline: float = 2.0) -> bool:
        """Remove it and its child cgroups from every hierarchy; idempotent.

        :returns: whether there was anything to remove.
        :raises CgroupFailed: when it still has processes at the deadline.
        """
        return await asyncio.to_thread(self._remove, deadline)

    def _kill(self, deadline: float) -> None:
        end = time.monotonic() + deadline
        if self.unified is not None:
            with contextlib.suppress(FileNotFoundError):
                write(self.unified, "cgroup.kill", b"1")
        wait = 0.0005
        while left := self.procs():
            frozen = self._freeze_v1_briefly()
            for pid in self.procs():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if frozen or self.mode is Mode.UNIFIED:
                self._thaw()
            if time.monotonic() > end:
                raise CgroupFailed(f"kill cgroup {self.path}: {len(left)} processes are left: {left[:8]}")
            time.sleep(wait)
            wait = min(wait * 2, 0.05)

    def _freeze_v1_briefly(self) -> bool:
        """Freeze so that a fork bomb cannot outrun the signals; a hung one is signalled all the same."""
        directory = self.v1.get("freezer")
        if directory is None:
            return False
        end = time.monotonic() + _FREEZE_SECONDS
        with contextlib.suppress(OSError):
            write(directory, "freezer.state", b"FROZEN")
            while time.monotonic() < end and read(directory, "freezer.state").strip() != b"FROZEN":
                time.sleep(0.001)
                # A freezer that stalls in FREEZING may go on when it is told again.
                write(directory, "freezer.state", b"FROZEN")
        return True

    def _thaw(self) -> None:
        directory = self.directory("freezer")
        if directory is None:
            return
        v2 = self.mode is Mode.UNIFIED
        with contextlib.suppress(FileNotFoundError):
            write(directory, "cgroup.freeze" if v2 else "freezer.state", b"0" if v2 else b"THAWED")

    def _remove(self, deadline: float) -> bool:
        end = time.monotonic() + deadline
        removed = [_remove_tree(directory, end, self.path) for directory in self.directories]
        return any(removed)


def read(directory: str, name: str) -> bytes:
    """Read a control file."""
    fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunk = os.read(fd, 1 << 16)
        whole = chunk
        # Control files come in pieces of at most a page when they are lists.
        while chunk:
            chunk = os.read(fd, 1 << 16)
            whole += chunk
        return whole
    finally:
        os.close(fd)


def write(directory: str, name: str, value: bytes) -> None:
    """Write a control file in one write(2), as the kernel wants it; never creates a file."""
    fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def _read_pids(directory: str) -> list[int]:
    try:
        return [int(pid) for pid in read(directory, "cgroup.procs").split()]
    except OSError as error:
        # EOPNOTSUPP: a threaded v2 cgroup; its domain above lists the processes.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []
        raise


def _children(directory: str) -> Iterator[str]:
    """Directories of all cgroups below, deepest first."""
    try:
        with os.scandir(directory) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for child in below:
        yield from _children(child)
        yield child


def _remove_tree(directory: str, end: float, label: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return False
    except OSError:
        pass
    else:
        return True
    wait = 0.0005
    while True:
        try:
            for child in _children(directory):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(child)
            os.rmdir(directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            # EBUSY: processes that were killed a moment ago still leave.
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > end:
                left = _read_pids(directory)
                raise CgroupFailed(
                    f"remove cgroup {label}: {error.strerror} ({len(left)} processes in {directory})"
                ) from error
        else:
            return True
        time.sleep(wait)
        wait = min(wait * 2, 0.05)
