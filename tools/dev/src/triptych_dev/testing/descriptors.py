"""How many descriptors the test's own process has."""

from __future__ import annotations

import gc
import os


def count_descriptors() -> int:
    """Open descriptors of this process, without those that only garbage of earlier tests holds."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
