"""The free space that pulls leave on the store's file system."""

from __future__ import annotations

from triptych_image.errors import DiskFull
from triptych_image.settings import Settings
from triptych_image.store import Store


def check_reserve(store: Store, settings: Settings) -> None:
    """Look whether more may be written. One system call.

    :raises DiskFull: when the reserve is touched.
    """
    reserve = settings.unpack.reserve_bytes
    free = store.free_bytes()
    if free < reserve:
        raise DiskFull(
            f"{store.paths.root}: {free >> 20} MiB free, which is below the reserve of "
            f"{reserve >> 20} MiB (no space left on device)"
        )
