"""Keeping an idle daemon small: glibc's allocator and Python's collector, told what the daemon is like."""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD = -1
_M_ARENA_MAX = -8
_ARENAS = 2
_TRIM_BYTES = 256 << 10


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
    gc.collect()
    gc.freeze()
    trim()


def trim() -> None:
    """Give freed memory back to the kernel; for after a burst, such as a pull. Takes about a millisecond."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
