"""What a failed write means."""

from __future__ import annotations

import errno

from triptych_image.errors import DiskFull, StoreUnusable


def disk_error(error: OSError, step: str) -> DiskFull | StoreUnusable:
    """What a failed write means."""
    text = f"{step}: {error.strerror or error}"
    return DiskFull(text) if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnusable(text)
