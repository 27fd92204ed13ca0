"""Keeps `memory.oom.group` of scopes as it was asked for.

The kubelet asks for it with every container: one process out of memory ends the whole container. systemd 252
has no property of scopes for it and writes 0 there each time it applies the scope's properties: after a
daemon-reload, and after every change of a limit. So the file is watched, and set again when it is cleared.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from runtime.v1.api_pb2 import LinuxContainerResources
from triptych_linux.inotify import Change, Inotify

from triptych_runtime.cgroups.handle import Cgroup

log = logging.getLogger(__name__)

FILE = "memory.oom.group"


class GroupKills:
    """The scopes whose processes are to be killed together; for the event loop.

    :param resolve: makes a handle from a `linux.cgroupsPath`.
    :param enabled: whether systemd makes the scopes, on cgroup v2; nothing is watched otherwise.
    """

    def __init__(self, resolve: Callable[[str], Cgroup], *, enabled: bool) -> None:
        self._resolve = resolve
        self._enabled = enabled
        self._inotify: Inotify | None = None
        self._watches: dict[str, int] = {}
        self._files: dict[int, str] = {}

    def keep(self, cgroups_path: str, resources: LinuxContainerResources | None) -> None:
        """A container runs with these limits now: hold its file at 1, or leave it to others."""
        self.drop(cgroups_path)
        wanted = resources is not None and resources.unified.get(FILE, "").strip() == "1"
        directory = self._resolve(cgroups_path).directory("memory") if wanted and self._enabled else None
        if directory is None:
            return
        file = os.path.join(directory, FILE)
        try:
            watch = self._listener().watch(file, Change.MODIFY)
        except OSError as error:
            log.warning("cannot watch a cgroup", extra={"file": file, "error": str(error)})
            return
        self._watches[cgroups_path] = watch
        self._files[watch] = file
        _set(file)

    def drop(self, cgroups_path: str) -> None:
        """The container ended, or has other limits."""
        watch = self._watches.pop(cgroups_path, None)
        if watch is not None and self._inotify is not None:
            self._files.pop(watch, None)
            self._inotify.forget(watch)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._watches.clear()
        self._files.clear()

    def _listener(self) -> Inotify:
        if self._inotify is None:
            self._inotify = Inotify(self._heard)
        return self._inotify

    def _heard(self, watch: int, change: Change, name: str) -> None:
        file = self._files.get(watch)
        if file is not None and not change & Change.IGNORED:
            _set(file)


def _set(file: str) -> None:
    """Write 1 unless it is there; a cgroup that is gone needs nothing."""
    try:
        with open(file, "r+b", buffering=0) as control:
            if control.read(16).strip() != b"1":
                control.seek(0)
                control.write(b"1")
    except OSError as error:
        log.debug("cannot set a cgroup's file", extra={"file": file, "error": str(error)})
