"""Noticing that directories change, also ones that do not exist yet."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable

from triptych_linux.inotify import Change, Inotify

log = logging.getLogger(__name__)

# Writing a configuration or a plugin comes as several events; what is read after them is whole.
_QUIET_SECONDS = 0.05
_BLIND_SECONDS = 10.0


class DirectoryWatch:
    """Wakes whoever waits in `changed` when one of some directories may have other contents."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._inotify: Inotify | None = None
        try:
            self._inotify = Inotify(self._heard)
        except OSError as error:
            # fs.inotify.max_user_instances, which the pods of root use up too.
            extra = {"seconds": _BLIND_SECONDS, "error": str(error)}
            log.error("directories cannot be watched, and are read now and then", extra=extra)
        self._watches: dict[int, str] = {}
        # What matters of each: names, "" for all.
        self._awaited: dict[int, set[str]] = {}

    def arm(self, directories: Iterable[str]) -> bool:
        """Watch these directories from now on, and only these.

        Read them after it: a change that was not yet told when the watches changed is told no more.

        :returns: whether the watches changed.
        """
        if self._inotify is None:
            return False
        watches: dict[int, str] = {}
        awaited: dict[int, set[str]] = {}
        for directory in directories:
            path, missing = os.path.abspath(directory), ""
            while True:
                try:
                    watch = self._inotify.watch(path, Change.entries() | Change.ONLYDIR)
                except FileNotFoundError:
                    path, missing = os.path.split(path)
                    continue
                except OSError as error:
                    log.error("cannot watch directory", extra={"path": path, "error": str(error)})
                    break
                watches[watch] = path
                # Of an ancestor only the next directory on the way matters: /etc changes for many reasons.
                awaited.setdefault(watch, set()).add(missing)
                break
        for watch in self._watches.keys() - watches.keys():
            self._inotify.forget(watch)
        changed = (self._watches, self._awaited) != (watches, awaited)
        self._watches, self._awaited = watches, awaited
        return changed

    async def changed(self) -> None:
        """Wait for a change since the last call, and for a moment of quiet after it."""
        if self._inotify is None:
            await asyncio.sleep(_BLIND_SECONDS)
            return
        await self._event.wait()
        while self._event.is_set():
            self._event.clear()
            await asyncio.sleep(_QUIET_SECONDS)

    def close(self) -> None:
        """Stop watching."""
        if self._inotify is not None:
            self._inotify.close()

    def _heard(self, watch: int, change: Change, name: str) -> None:
        if change & Change.IGNORED:
            return
        wanted = self._awaited.get(watch, set())
        if watch < 0 or not name or "" in wanted or name in wanted:
            self._event.set()
