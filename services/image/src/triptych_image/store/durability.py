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


async def sync(path: Path) -> None:
    """Return once everything on the file system of a path that was written before this call is durable.

    A sync covers a layer of 24,000 files and every layer beside it in one journal commit, where one fsync
    per file would be 24,000 of them.

    :raises OSError: when the disk says that something could not be written.
    """
    point("sync-before")
    await asyncio.to_thread(sync_filesystem, path)
    point("sync-after")
