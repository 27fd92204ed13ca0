"""Values of the metrics, read from cgroup v1 or v2. Blocking: for a thread."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from runtime.v1.api_pb2 import LinuxContainerResources

from triptych_runtime.cgroups import Cgroup, Mode
from triptych_runtime.stats import families as f
from triptych_runtime.stats.blockio import device_name, read_block_io
from triptych_runtime.stats.families import Family
from triptych_runtime.stats.files import Pressure, flat, number, read
from triptych_runtime.stats.readers import V1_UNLIMITED, read_cpu, read_memory, read_psi
from triptych_runtime.stats.subjects import InterfaceCounters, LayerUsage

Value = tuple[Family, tuple[str, ...], int]
"""A metric, its own labels after the common ones, and its value."""

_NS = 1_000_000_000
_USEC = 1_000_000
_HUGETLB_V1 = re.compile(r"hugetlb\.([0-9]+[KMG]B)\.usage_in_bytes\Z")
_HUGETLB_V2 = re.compile(r"hugetlb\.([0-9]+[KMG]B)\.current\Z")


def cpu_values(cgroup: Cgroup) -> Iterator[Value]:
    """CPU time and throttling."""
    sample = read_cpu(cgroup)
    if sample is None:
        return
    yield f.CPU_USAGE, ("total",), sample.usage // _NS
    stat = flat(read(cgroup.directory("cpu") or "", "cpu.stat"))
    if cgroup.mode is Mode.UNIFIED:
        user, system = stat.get(b"user_usec", 0) // _USEC, stat.get(b"system_usec", 0) // _USEC
        throttled = stat.get(b"throttled_usec", 0) // _USEC
    else:
        ticks = flat(read(cgroup.directory("cpuacct") or "", "cpuacct.stat"))
        rate = os.sysconf("SC_CLK_TCK")
        user, system = ticks.get(b"user", 0) // rate, ticks.get(b"system", 0) // rate
        throttled = stat.get(b"throttled_time", 0) // _NS
    yield f.CPU_USER, (), user
    yield f.CPU_SYSTEM, (), system
    yield f.CPU_PERIODS, (), stat.get(b"nr_periods", 0)
    yield f.CPU_THROTTLED_PERIODS, (), stat.get(b"nr_throttled", 0)
    yield f.CPU_THROTTLED, (), throttled


def memory_values(cgroup: Cgroup) -> Iterator[Value]:
    """Memory, swap, page faults and kills."""
    sample = read_memory(cgroup)
    directory = cgroup.directory("memory")
    if sample is None or directory is None:
        return
    stat = sample.stat
    v2 = cgroup.mode is Mode.UNIFIED
    total = b"" if v2 else b"total_"
    peak = number(directory, "memory.peak" if v2 else "memory.max_usage_in_bytes")
    kernel = stat.get(b"kernel") if v2 else number(directory, "memory.kmem.usage_in_bytes")
    if v2:
        failures: int | None = flat(read(directory, "memory.events")).get(b"max", 0)
    else:
        failures = number(directory, "memory.failcnt")
    for family, value in (
        (f.MEMORY_USAGE, sample.usage),
        (f.MEMORY_MAX_USAGE, peak),
        (f.MEMORY_WORKING_SET, sample.working_set),
        (f.MEMORY_RSS, sample.rss),
        (f.MEMORY_CACHE, stat.get(b"file" if v2 else b"total_cache", 0)),
        (f.MEMORY_MAPPED_FILE, stat.get(b"file_mapped" if v2 else b"total_mapped_file", 0)),
        (f.MEMORY_ACTIVE_FILE, stat.get(total + b"active_file", 0)),
        (f.MEMORY_INACTIVE_FILE, stat.get(total + b"inactive_file", 0)),
        (f.MEMORY_KERNEL, kernel),
        (f.MEMORY_SWAP, sample.swap),
        (f.MEMORY_FAILCNT, failures),
        (f.OOM_EVENTS, cgroup.oom_kills()),
    ):
        if value is not None:
            yield family, (), value
    for kind in ("pgfault", "pgmajfault"):
        # On v2 a cgroup's own numbers are not told apart from those of its children.
        yield f.MEMORY_FAILURES, (kind, "container"), stat.get(kind.encode(), 0)
        yield f.MEMORY_FAILURES, (kind, "hierarchy"), stat.get(total + kind.encode(), 0)


def pressure_values(cgroup: Cgroup) -> Iterator[Value]:
    """Pressure stall information, where the kernel has it."""
    for resource, waiting, stalled in (
        ("cpu", f.PRESSURE_CPU_WAITING, f.PRESSURE_CPU_STALLED),
        ("memory", f.PRESSURE_MEMORY_WAITING, f.PRESSURE_MEMORY_STALLED),
        ("io", f.PRESSURE_IO_WAITING, f.PRESSURE_IO_STALLED),
    ):
        psi: Pressure | None = read_psi(cgroup, resource)
        if psi is None:
            continue
        for family, line in ((waiting, psi.some), (stalled, psi.full)):
            if line is not None:
                yield family, (), line.total_ns // _NS


def block_io_values(cgroup: Cgroup) -> Iterator[Value]:
    """Bytes and operations by block device."""
    for item in read_block_io(cgroup):
        name = device_name(item.major, item.minor)
        yield f.FS_READS_BYTES, (name,), item.read_bytes
        yield f.FS_READS, (name,), item.reads
        yield f.FS_WRITES_BYTES, (name,), item.written_bytes
        yield f.FS_WRITES, (name,), item.writes
        place = (name, str(item.major), str(item.minor))
        yield f.BLKIO_USAGE, (*place, "Read"), item.read_bytes
        yield f.BLKIO_USAGE, (*place, "Write"), item.written_bytes


def hugetlb_values(cgroup: Cgroup) -> Iterator[Value]:
    """Huge pages by size."""
    directory = cgroup.directory("hugetlb")
    v2 = cgroup.mode is Mode.UNIFIED
    pattern = _HUGETLB_V2 if v2 else _HUGETLB_V1
    try:
        names = os.listdir(directory) if directory else []
    except OSError:
        return
    for match in filter(None, map(pattern.match, sorted(names))):
        size = match.group(1)
        usage = number(directory or "", match.group(0))
        peak = None if v2 else number(directory or "", f"hugetlb.{size}.max_usage_in_bytes")
        if usage is not None:
            yield f.HUGETLB_USAGE, (size,), usage
        if peak is not None:
            yield f.HUGETLB_MAX_USAGE, (size,), peak


def layer_values(usage: LayerUsage) -> Iterator[Value]:
    """The writable layer and the file system that it is on."""
    try:
        status = os.stat(usage.mountpoint)
        system = os.statvfs(usage.mountpoint)
    except OSError:
        return
    device = (device_name(os.major(status.st_dev), os.minor(status.st_dev)),)
    yield f.FS_USAGE, device, usage.used_bytes
    yield f.FS_LIMIT, device, system.f_blocks * system.f_frsize
    yield f.FS_INODES_FREE, device, system.f_ffree
    yield f.FS_INODES_TOTAL, device, system.f_files


def process_values(cgroup: Cgroup, first: int) -> Iterator[Value]:
    """Processes, threads, descriptors and limits.

    :param first: the container's first process.
    """
    pids = cgroup.procs()
    yield f.PROCESSES, (), len(pids)
    directory = cgroup.directory("pids") or ""
    threads = number(directory, "pids.current")
    if threads is not None:
        yield f.THREADS, (), threads
        yield f.THREADS_MAX, (), number(directory, "pids.max") or 0
    descriptors, sockets = _descriptors(pids)
    yield f.FILE_DESCRIPTORS, (), descriptors
    yield f.SOCKETS, (), sockets
    soft = _max_open_files(first)
    if soft is not None:
        yield f.ULIMITS_SOFT, ("max_open_files",), soft


def _descriptors(pids: Iterable[int]) -> tuple[int, int]:
    total = sockets = 0
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        total += len(names)
        for name in names:
            try:
                sockets += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
            except OSError:
                continue
    return total, sockets


def _max_open_files(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return None
    match = re.search(r"^Max open files +([0-9]+)", text, re.MULTILINE)
    # "unlimited" is -1 in cAdvisor, which the CRI's unsigned value cannot say.
    return int(match.group(1)) if match else None


def spec_values(
    cgroup: Cgroup, resources: LinuxContainerResources | None, started_at: int, now: int
) -> Iterator[Value]:
    """Limits in force, and times."""
    yield f.LAST_SEEN, (), now // _NS
    yield f.START_TIME, (), started_at // _NS
    if resources is None:
        return
    for family, value in (
        (f.SPEC_CPU_PERIOD, resources.cpu_period),
        (f.SPEC_CPU_QUOTA, resources.cpu_quota),
        (f.SPEC_CPU_SHARES, resources.cpu_shares),
        (f.SPEC_MEMORY_LIMIT, resources.memory_limit_in_bytes),
        # The kubelet asks for these two by their files of cgroup v2 (`unified`).
        (f.SPEC_MEMORY_RESERVATION, _memory_limit(cgroup, "memory.min", "memory.soft_limit_in_bytes")),
        (f.SPEC_MEMORY_SWAP, _memory_limit(cgroup, "memory.swap.max", "memory.memsw.limit_in_bytes")),
    ):
        yield family, (), max(value, 0)


def _memory_limit(cgroup: Cgroup, v2: str, v1: str) -> int:
    """A limit as the kernel has it; 0 for none."""
    value = number(cgroup.directory("memory") or "", v2 if cgroup.mode is Mode.UNIFIED else v1) or 0
    return 0 if value >= V1_UNLIMITED else value


def network_values(interfaces: Sequence[InterfaceCounters]) -> Iterator[Value]:
    """Counters of the pod's interfaces."""
    for item in interfaces:
        for family, value in (
            (f.NETWORK_RX_BYTES, item.rx_bytes),
            (f.NETWORK_RX_PACKETS, item.rx_packets),
            (f.NETWORK_RX_ERRORS, item.rx_errors),
            (f.NETWORK_RX_DROPPED, item.rx_dropped),
            (f.NETWORK_TX_BYTES, item.tx_bytes),
            (f.NETWORK_TX_PACKETS, item.tx_packets),
            (f.NETWORK_TX_ERRORS, item.tx_errors),
            (f.NETWORK_TX_DROPPED, item.tx_dropped),
        ):
            yield family, (item.name,), value
