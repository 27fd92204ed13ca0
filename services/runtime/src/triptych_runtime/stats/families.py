"""The metrics of ListPodSandboxMetrics: names and meanings of cAdvisor's, which the kubelet passes on.

Names and labels follow https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md; the
list is that of KEP-2371. Values are whole numbers in the CRI, so seconds lose their fractions.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.v1 import api_pb2

BASE_LABELS = ("id", "name", "image", "container", "pod", "namespace")
"""Cgroup path, container ID, image reference, and the three names of Kubernetes, as cAdvisor has them."""

COUNTER = api_pb2.COUNTER
GAUGE = api_pb2.GAUGE


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    :param labels: its labels after `BASE_LABELS`.
    """

    name: str
    help: str
    kind: api_pb2.MetricType.ValueType = COUNTER
    labels: tuple[str, ...] = ()


_INTERFACE = ("interface",)
_DEVICE = ("device",)


def _family(
    suffix: str, text: str, kind: api_pb2.MetricType.ValueType = COUNTER, labels: tuple[str, ...] = ()
) -> Family:
    return Family(f"container_{suffix}", text, kind, labels)


CPU_USAGE = _family("cpu_usage_seconds_total", "CPU time consumed, in seconds.", COUNTER, ("cpu",))
CPU_USER = _family("cpu_user_seconds_total", "CPU time consumed in user mode, in seconds.")
CPU_SYSTEM = _family("cpu_system_seconds_total", "CPU time consumed in kernel mode, in seconds.")
CPU_PERIODS = _family("cpu_cfs_periods_total", "Enforcement periods of the CPU quota that have passed.")
CPU_THROTTLED_PERIODS = _family("cpu_cfs_throttled_periods_total", "Periods in which the quota was used up.")
CPU_THROTTLED = _family("cpu_cfs_throttled_seconds_total", "Time throttled by the CPU quota, in seconds.")

MEMORY_USAGE = _family("memory_usage_bytes", "Memory in use, page cache included.", GAUGE)
MEMORY_MAX_USAGE = _family("memory_max_usage_bytes", "Most memory that was ever in use.", GAUGE)
MEMORY_WORKING_SET = _family("memory_working_set_bytes", "Memory that is not easily reclaimed.", GAUGE)
MEMORY_RSS = _family("memory_rss", "Anonymous memory, in bytes.", GAUGE)
MEMORY_CACHE = _family("memory_cache", "Page cache, in bytes.", GAUGE)
MEMORY_MAPPED_FILE = _family("memory_mapped_file", "Memory-mapped files, in bytes.", GAUGE)
MEMORY_ACTIVE_FILE = _family("memory_total_active_file_bytes", "Page cache on the active list.", GAUGE)
MEMORY_INACTIVE_FILE = _family("memory_total_inactive_file_bytes", "Page cache on the inactive list.", GAUGE)
MEMORY_KERNEL = _family("memory_kernel_usage", "Kernel memory, in bytes.", GAUGE)
MEMORY_SWAP = _family("memory_swap", "Swap in use, in bytes.", GAUGE)
MEMORY_FAILCNT = _family("memory_failcnt", "How often the memory limit was hit.")
MEMORY_FAILURES = _family("memory_failures_total", "Page faults.", COUNTER, ("failure_type", "scope"))
OOM_EVENTS = _family("oom_events_total", "Processes killed for the memory limit.")

NETWORK_RX_BYTES = _family("network_receive_bytes_total", "Bytes received.", COUNTER, _INTERFACE)
NETWORK_RX_PACKETS = _family("network_receive_packets_total", "Packets received.", COUNTER, _INTERFACE)
NETWORK_RX_ERRORS = _family("network_receive_errors_total", "Errors while receiving.", COUNTER, _INTERFACE)
NETWORK_RX_DROPPED = _family(
    "network_receive_packets_dropped_total", "Packets dropped while receiving.", COUNTER, _INTERFACE
)
NETWORK_TX_BYTES = _family("network_transmit_bytes_total", "Bytes sent.", COUNTER, _INTERFACE)
NETWORK_TX_PACKETS = _family("network_transmit_packets_total", "Packets sent.", COUNTER, _INTERFACE)
NETWORK_TX_ERRORS = _family("network_transmit_errors_total", "Errors while sending.", COUNTER, _INTERFACE)
NETWORK_TX_DROPPED = _family(
    "network_transmit_packets_dropped_total", "Packets dropped while sending.", COUNTER, _INTERFACE
)

FS_USAGE = _family("fs_usage_bytes", "Bytes in the writable layer.", GAUGE, _DEVICE)
FS_LIMIT = _family("fs_limit_bytes", "Size of the file system of the writable layer.", GAUGE, _DEVICE)
FS_INODES_FREE = _family("fs_inodes_free", "Free inodes of that file system.", GAUGE, _DEVICE)
FS_INODES_TOTAL = _family("fs_inodes_total", "Inodes of that file system.", GAUGE, _DEVICE)
FS_READS_BYTES = _family("fs_reads_bytes_total", "Bytes read from a block device.", COUNTER, _DEVICE)
FS_READS = _family("fs_reads_total", "Reads from a block device.", COUNTER, _DEVICE)
FS_WRITES_BYTES = _family("fs_writes_bytes_total", "Bytes written to a block device.", COUNTER, _DEVICE)
FS_WRITES = _family("fs_writes_total", "Writes to a block device.", COUNTER, _DEVICE)
BLKIO_USAGE = _family(
    "blkio_device_usage_total",
    "Bytes by block device and operation.",
    COUNTER,
    ("device", "major", "minor", "operation"),
)

PROCESSES = _family("processes", "Processes in the container.", GAUGE)
THREADS = _family("threads", "Threads in the container.", GAUGE)
THREADS_MAX = _family("threads_max", "Most threads that the container may have; 0 for no limit.", GAUGE)
FILE_DESCRIPTORS = _family("file_descriptors", "Open file descriptors of all its processes.", GAUGE)
SOCKETS = _family("sockets", "Open sockets of all its processes.", GAUGE)
ULIMITS_SOFT = _family("ulimits_soft", "Soft limit of its first process.", GAUGE, ("ulimit",))

PRESSURE_CPU_WAITING = _family("pressure_cpu_waiting_seconds_total", "Time some tasks waited for CPU.")
PRESSURE_CPU_STALLED = _family("pressure_cpu_stalled_seconds_total", "Time no task got any CPU.")
PRESSURE_MEMORY_WAITING = _family("pressure_memory_waiting_seconds_total", "Time some waited for memory.")
PRESSURE_MEMORY_STALLED = _family("pressure_memory_stalled_seconds_total", "Time all waited for memory.")
PRESSURE_IO_WAITING = _family("pressure_io_waiting_seconds_total", "Time some tasks waited for IO.")
PRESSURE_IO_STALLED = _family("pressure_io_stalled_seconds_total", "Time all tasks waited for IO.")

HUGETLB_USAGE = _family("hugetlb_usage_bytes", "Huge pages in use, in bytes.", GAUGE, ("pagesize",))
HUGETLB_MAX_USAGE = _family("hugetlb_max_usage_bytes", "Most huge pages ever used.", GAUGE, ("pagesize",))

LAST_SEEN = _family("last_seen", "Unix time at which this was read.", GAUGE)
START_TIME = _family("start_time_seconds", "Unix time at which the container started.", GAUGE)
SPEC_CPU_PERIOD = _family("spec_cpu_period", "CPU period in microseconds.", GAUGE)
SPEC_CPU_QUOTA = _family("spec_cpu_quota", "CPU quota in microseconds a period.", GAUGE)
SPEC_CPU_SHARES = _family("spec_cpu_shares", "CPU shares.", GAUGE)
SPEC_MEMORY_LIMIT = _family("spec_memory_limit_bytes", "Memory limit; 0 for none.", GAUGE)
SPEC_MEMORY_RESERVATION = _family(
    "spec_memory_reservation_limit_bytes", "Memory reservation; 0 for none.", GAUGE
)
SPEC_MEMORY_SWAP = _family("spec_memory_swap_limit_bytes", "Swap limit; 0 for none.", GAUGE)

FAMILIES: tuple[Family, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Family)
)
"""All of them, in the order of this file."""


def metric_descriptors() -> list[api_pb2.MetricDescriptor]:
    """What ListMetricDescriptors answers."""
    return [
        api_pb2.MetricDescriptor(name=f.name, help=f.help, label_keys=[*BASE_LABELS, *f.labels])
        for f in FAMILIES
    ]
