"""When written data is on the disk."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from triptych_linux import syscalls

from triptych_image.faults import point


def boot_id() -> str:
    """Changes with every boot; data that was not synced survives a killed daemon, but no power loss."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def sync_filesystem(path: Path) -> None:
    """Make everything on the file system of a path durable (syncfs(2)); reports write errors."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


class SyncGate:
    """Shares syncs: who asks while one runs waits for the next one, together with all others who do.

    A sync covers a layer of 24,000 files and every layer beside it in one journal commit, where one fsync
    per file would be 24,000 of them.
    """

    def __init__(self, path: Path, *, enabled: bool = True) -> None:
        self._path = path
        self._enabled = enabled
        self._lock = asyncio.Lock()
        self._started = 0
        self._finished = 0

    async def sync(self) -> None:
        """Return once everything written before this call is durable.

        :raises OSError: when the disk says that something could not be written.
        """
        if not self._enabled:
            return
        point("sync-before")
        # One that runs already may have passed what was written just now: only a later one counts.
        seen = self._started
        async with self._lock:
            if self._finished <= seen:
                self._started += 1
                mine = self._started
                await asyncio.to_thread(sync_filesystem, self._path)
                self._finished = max(self._finished, mine)
        point("sync-after")
