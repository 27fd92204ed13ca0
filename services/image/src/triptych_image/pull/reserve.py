"""The free space that pulls leave on the store's file system."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from triptych_image.errors import DiskFull
from triptych_image.settings import Settings
from triptych_image.store import Store

T = TypeVar("T")

_WATCH_SECONDS = 0.1


async def within_reserve(work: Coroutine[Any, Any, T], store: Store, settings: Settings) -> T:
    """Wait for something that writes to the store's file system, as long as it leaves the reserve.

    :raises DiskFull: when it does not; the work is cancelled then, and has ended.
    """
    working = asyncio.ensure_future(work)
    try:
        check_reserve(store, settings)
        while not (await asyncio.wait([working], timeout=_WATCH_SECONDS))[0]:
            check_reserve(store, settings)
        return await working
    finally:
        working.cancel()
        await asyncio.wait([working])


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
