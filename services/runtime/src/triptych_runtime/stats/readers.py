"""Samples of one cgroup, on cgroup v1 and v2 alike. Blocking: for a thread."""

from __future__ import annotations

import time
from dataclasses import dataclass

from triptych_runtime.cgroups import Cgroup, Mode
from triptych_runtime.stats.files import Pressure, flat, number, pressure, read

# A v1 limit at this or above is "none": the largest number of whole pages.
V1_UNLIMITED = 1 << 62
_USEC = 1000


@dataclass(frozen=True, slots=True)
class CpuSample:
    """CPU time since the cgroup was made, in nanoseconds.

    :param timestamp: Unix time of the reading in nanoseconds.
    """

    timestamp: int
    usage: int
    psi: Pressure | None


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Memory in bytes.

    :param limit: None for no limit.
    :param working_set: what cannot be reclaimed easily: usage without inactive page cache.
    :param swap: None where the kernel does not account swap.
    :param swap_limit: swap alone (not memory and swap); None for no limit or no accounting.
    :param stat: memory.stat as it is; on v1 take the keys with "total_", which include child cgroups.
    """

    timestamp: int
    usage: int
    limit: int | None
    working_set: int
    rss: int
    page_faults: int
    major_page_faults: int
    swap: int | None
    swap_limit: int | None
    psi: Pressure | None
    stat: dict[bytes, int]

    @property
    def available(self) -> int | None:
        """What is left of the limit, None without one."""
        return None if self.limit is None else max(self.limit - self.working_set, 0)


@dataclass(frozen=True, slots=True)
class IoSample:
    """Input and output pressure."""

    timestamp: int
    psi: Pressure


def read_psi(cgroup: Cgroup, resource: str) -> Pressure | None:
    """Pressure of "cpu", "memory" or "io"; on a hybrid node from the v2 hierarchy if processes are there."""
    if cgroup.unified is None:
        return None
    return pressure(read(cgroup.unified, f"{resource}.pressure"))


def read_cpu(cgroup: Cgroup) -> CpuSample | None:
    """CPU usage; None when the cgroup is gone."""
    usage = _cpu_usage(cgroup)
    if usage is None:
        return None
    return CpuSample(time.time_ns(), usage, read_psi(cgroup, "cpu"))


def _cpu_usage(cgroup: Cgroup) -> int | None:
    if cgroup.mode is Mode.UNIFIED:
        microseconds = flat(read(cgroup.unified or "", "cpu.stat")).get(b"usage_usec")
        return None if microseconds is None else microseconds * _USEC
    directory = cgroup.directory("cpuacct")
    return None if directory is None else number(directory, "cpuacct.usage")


def read_memory(cgroup: Cgroup) -> MemorySample | None:
    """Memory and swap usage; None when the cgroup is gone."""
    directory = cgroup.directory("memory")
    if directory is None:
        return None
    return _memory_v2(cgroup, directory) if cgroup.mode is Mode.UNIFIED else _memory_v1(cgroup, directory)


def _memory_v1(cgroup: Cgroup, directory: str) -> MemorySample | None:
    usage = number(directory, "memory.usage_in_bytes")
    stat = flat(read(directory, "memory.stat"))
    if usage is None or not stat:
        return None
    limit = _v1_limit(directory, "memory.limit_in_bytes")
    swap_limit = None
    # The memsw files and total_swap are there together, or not at all.
    swap = stat.get(b"total_swap")
    if swap is not None:
        both = _v1_limit(directory, "memory.memsw.limit_in_bytes")
        swap_limit = max(both - limit, 0) if both is not None and limit is not None else None
    return MemorySample(
        timestamp=time.time_ns(),
        usage=usage,
        limit=limit,
        working_set=max(usage - stat.get(b"total_inactive_file", 0), 0),
        rss=stat.get(b"total_rss", 0),
        page_faults=stat.get(b"total_pgfault", 0),
        major_page_faults=stat.get(b"total_pgmajfault", 0),
        swap=swap,
        swap_limit=swap_limit,
        psi=read_psi(cgroup, "memory"),
        stat=stat,
    )


def _v1_limit(directory: str, name: str) -> int | None:
    value = number(directory, name)
    return None if value is None or value >= V1_UNLIMITED else value


def _memory_v2(cgroup: Cgroup, directory: str) -> MemorySample | None:
    usage = number(directory, "memory.current")
    stat = flat(read(directory, "memory.stat"))
    if usage is None or not stat:
        return None
    return MemorySample(
        timestamp=time.time_ns(),
        usage=usage,
        limit=number(directory, "memory.max"),
        working_set=max(usage - stat.get(b"inactive_file", 0), 0),
        rss=stat.get(b"anon", 0),
        page_faults=stat.get(b"pgfault", 0),
        major_page_faults=stat.get(b"pgmajfault", 0),
        swap=number(directory, "memory.swap.current"),
        swap_limit=number(directory, "memory.swap.max"),
        psi=read_psi(cgroup, "memory"),
        stat=stat,
    )


def read_io(cgroup: Cgroup) -> IoSample | None:
    """IO pressure; None where the kernel has none for this cgroup."""
    psi = read_psi(cgroup, "io")
    return None if psi is None else IoSample(time.time_ns(), psi)
