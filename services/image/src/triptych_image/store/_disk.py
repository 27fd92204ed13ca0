"""What a failed write means, and what a file takes."""

from __future__ import annotations

import errno
from pathlib import Path

from triptych_image.errors import DiskFull, StoreUnusable


def disk_error(error: OSError, step: str) -> DiskFull | StoreUnusable:
    """What a failed write means."""
    text = f"{step}: {error.strerror or error}"
    return DiskFull(text) if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnusable(text)


def size_on_disk(path: Path) -> int:
    """Bytes of a file in whole blocks, 0 when it is not there."""
    try:
        return path.stat().st_size + 4095 & -4096
    except FileNotFoundError:
        return 0
