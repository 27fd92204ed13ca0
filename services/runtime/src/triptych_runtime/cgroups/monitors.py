"""Where container monitors live: outside the daemon's own cgroup, so that it can stop and restart alone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os

from triptych_runtime.cgroups import pods, systemd
from triptych_runtime.cgroups.errors import CgroupFailed
from triptych_runtime.cgroups.handle import Cgroup, write
from triptych_runtime.cgroups.layout import Layout, Mode
from triptych_runtime.cgroups.paths import PREFIX, Driver, expand_slice

GROUP = f"/{PREFIX}-monitors"
_SCOPE = f"{PREFIX}-monitors.scope"
_SLICE = f"{PREFIX}.slice"
# Another instance on this node that ends takes the empty cgroup with it.
_ATTEMPTS = 5
_GONE = (errno.ENOENT, errno.ENODEV)


class Monitors:
    """Places monitors in one cgroup for the whole node.

    With systemd that is one transient scope, asked for when the first monitor comes and when it is
    needed again after it was empty; all others are placed by a write to its cgroup.procs. A daemon
    that is in the root cgroup of a hierarchy has nothing to get out of there.

    :param group: the cgroup, for the cgroupfs driver.
    """

    def __init__(self, layout: Layout, driver: Driver, group: str = GROUP) -> None:
        self._layout = layout
        self._driver = driver
        self._lock = asyncio.Lock()
        path = f"{expand_slice(_SLICE)}/{_SCOPE}" if driver is Driver.SYSTEMD else group
        own = Cgroup.of_process(layout, os.getpid())
        target = Cgroup.at(layout, path)
        self._path = path
        self._directories = _to_leave(layout, own, target)

    async def place(self, pid: int) -> None:
        """Move a monitor that has not forked yet.

        The kernel may take some milliseconds (an RCU grace period) for the first move of a process in
        a while and microseconds for those that follow: done just before the OCI runtime moves the
        container it costs nothing on top.

        :raises CgroupFailed: when it cannot be placed.
        """
        if not self._directories:
            return
        try:
            if await asyncio.to_thread(self._write, pid):
                return
            async with self._lock:
                if await asyncio.to_thread(self._write, pid):
                    return
                for _ in range(_ATTEMPTS):
                    if self._driver is Driver.SYSTEMD:
                        await self._start_scope(pid)
                    else:
                        await asyncio.to_thread(self._make)
                    if await asyncio.to_thread(self._write, pid):
                        return
                raise CgroupFailed(f"place monitor {pid}: its cgroup vanishes")
        except OSError as error:
            raise CgroupFailed(f"place monitor {pid}: {error.filename}: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the cgroup if no monitor is left; systemd does that by itself."""
        for directory in self._directories:
            with contextlib.suppress(OSError):
                os.rmdir(directory)

    def _write(self, pid: int) -> bool:
        """Whether the cgroup was there to be written to."""
        try:
            for directory in self._directories:
                write(directory, "cgroup.procs", b"%d" % pid)
        except OSError as error:
            if error.errno in _GONE:
                return False
            raise
        return True

    def _make(self) -> None:
        for directory in self._directories:
            os.makedirs(directory, 0o755, exist_ok=True)
            pods.inherit_cpuset(self._layout, directory)

    async def _start_scope(self, pid: int) -> None:
        await systemd.start_scope(_SCOPE, _SLICE, [pid], "Monitors of triptych's containers")
        scope = Cgroup.at(self._layout, self._path)
        await systemd.settle(lambda: pid in scope.procs(), f"start {_SCOPE}")
        if self._layout.mode is not Mode.UNIFIED:
            await asyncio.to_thread(self._make)


def _to_leave(layout: Layout, own: Cgroup, target: Cgroup) -> tuple[str, ...]:
    """The directories of `target` in the hierarchies in which the daemon is not in the root."""
    own_directories = {os.path.normpath(directory) for directory in own.directories}
    found: list[str] = []
    for mount, directory in zip(layout.hierarchies, target.directories, strict=True):
        if os.path.normpath(mount) not in own_directories:
            found.append(directory)
    return tuple(found)
