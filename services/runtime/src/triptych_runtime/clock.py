"""Time as the CRI has it: Unix nanoseconds."""

from __future__ import annotations

import time
from collections.abc import Iterable


def now() -> int:
    """Unix time in nanoseconds."""
    return time.time_ns()


def after(moments: Iterable[int]) -> int:
    """Unix time in nanoseconds, or just after the latest of some moments where the clock was set back.

    Of a pod's sandboxes and a name's containers the kubelet takes the one for the newest that was created
    last. On a node whose clock is behind until it is synchronised that would be one of the former boot, and
    the kubelet would replace what runs again and again.
    """
    return max(now(), max(moments, default=0) + 1)


def boot_id() -> str:
    """The kernel's identity of this boot (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
