"""Keeping an idle daemon small: glibc's allocator and Python's collector, told what the daemon is like."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

_M_TRIM_THRESHOLD = -1
_M_ARENA_MAX = -8
_ARENAS = 2
_TRIM_BYTES = 256 << 10
_MADV_DONTNEED = 4
_LOOK_SECONDS = 5.0
_WORTH_BYTES = 512 << 10


def limit_arenas() -> None:
    """Let threads share two malloc arenas, which else number eight a core and never shrink.

    Call before the first thread starts. A libc without mallopt (musl) has no such arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def settle() -> None:
    """Call once the daemon serves: what start-up made lives as long as the daemon, so collections need not
    look at it again, and what start-up threw away goes back to the kernel."""
    sys.path_importer_cache.clear()
    gc.collect()
    gc.freeze()
    unmap_libraries()
    trim()


def trim() -> None:
    """Give freed memory back to the kernel; for after a burst, such as a pull. Takes about a millisecond."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


async def keep_trimmed() -> None:
    """Trim after each burst that freed a good deal; runs until cancelled."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return
    mallinfo.restype = _Mallinfo2
    free = mallinfo().fordblks
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        # Counts what is free, whether the kernel has it back or not: what came since the last trim is new.
        now = mallinfo().fordblks
        if now - free > _WORTH_BYTES:
            trim()
            free = mallinfo().fordblks
        free = min(free, now)


class _Mallinfo2(ctypes.Structure):
    """mallinfo(3): sizes in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def unmap_libraries() -> None:
    """Give up the pages of programs and libraries that were mapped so far; what is run again comes back.

    Half of what the start ran is never run again. The pages stay in the page cache, where the kernel can
    take them for something better, which it does not as long as they look used.
    """
    libc = ctypes.CDLL(None)
    with contextlib.suppress(OSError):  # a kernel without smaps
        for begin, end in _clean_mappings():
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


def _clean_mappings() -> Iterator[tuple[int, int]]:
    """Addresses of private read-only mappings of files of which no page was ever written (proc(5))."""
    addresses = (0, 0)
    with open("/proc/self/smaps") as file:
        for line in file:
            name, *values = line.split(maxsplit=5)
            if "-" in name:
                readable, inode = values[0] in ("r--p", "r-xp"), values[3]
                begin, _, end = name.partition("-")
                addresses = (int(begin, 16), int(end, 16)) if readable and inode != "0" else (0, 0)
            elif name == "Anonymous:" and values[0] == "0" and addresses != (0, 0):
                yield addresses
