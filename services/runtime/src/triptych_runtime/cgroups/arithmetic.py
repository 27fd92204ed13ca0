"""From CRI's resource numbers, which are those of cgroup v1, to what each kernel layout takes."""

from __future__ import annotations

import math

from triptych_runtime.cgroups.errors import BadResources

UNLIMITED = -1
DEFAULT_PERIOD = 100_000
_MIN_SHARES, _MAX_SHARES = 2, 262_144
_MIN_WEIGHT, _MAX_WEIGHT = 1, 10_000


def weight_from_shares(shares: int) -> int:
    """cpu.weight (1..10000) for cpu.shares (2..262144).

    The curve that crun 1.23 and runc 1.3.2 use: it goes through (2, 1), (1024, 100) and
    (262144, 10000), so that the default stays the default.
    """
    if shares <= _MIN_SHARES:
        return _MIN_WEIGHT
    if shares >= _MAX_SHARES:
        return _MAX_WEIGHT
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def swap_max(memory: int, memory_and_swap: int) -> int:
    """memory.swap.max (v2: swap alone) from v1's limit of memory and swap together; -1 is no limit.

    :raises BadResources: for a sum below the memory limit, or a sum without a memory limit.
    """
    if memory_and_swap == UNLIMITED:
        return UNLIMITED
    if memory <= 0:
        raise BadResources("memory_swap_limit_in_bytes needs a memory_limit_in_bytes")
    if memory_and_swap < memory:
        raise BadResources(
            f"memory_swap_limit_in_bytes {memory_and_swap} is less than memory_limit_in_bytes {memory}"
        )
    return memory_and_swap - memory


def limit_text(value: int) -> bytes:
    """A v2 limit: a number, or "max" for -1."""
    return b"max" if value < 0 else b"%d" % value


def quota_per_second(quota: int, period: int) -> int:
    """systemd's CPUQuotaPerSecUSec, rounded up to 10 ms since systemd keeps whole percents."""
    usec = -(-quota * 1_000_000 // period)
    return -(-usec // 10_000) * 10_000


def cpu_mask(cpus: str) -> bytes:
    """A list such as "0-2,8" as bits, the first CPU in the lowest bit of the first byte.

    :raises BadResources: when it is no such list.
    """
    bits = 0
    try:
        for part in cpus.split(","):
            first, _, last = part.strip().partition("-")
            for number in range(int(first), int(last or first) + 1):
                bits |= 1 << number
    except ValueError:
        raise BadResources(f"cpuset: {cpus!r} is not a list of numbers and ranges") from None
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
