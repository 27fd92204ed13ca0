"""CRI messages from samples."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.v1 import api_pb2

from triptych_runtime.stats.files import Pressure, PressureLine
from triptych_runtime.stats.network import DEFAULT_INTERFACE
from triptych_runtime.stats.readers import CpuSample, IoSample, MemorySample
from triptych_runtime.stats.subjects import InterfaceCounters, LayerUsage

_Value = api_pb2.UInt64Value


def psi_message(pressure: Pressure | None) -> api_pb2.PsiStats | None:
    """PsiStats; a line that the kernel does not have stays zero."""
    if pressure is None:
        return None
    return api_pb2.PsiStats(Some=_psi_data(pressure.some), Full=_psi_data(pressure.full))


def _psi_data(line: PressureLine | None) -> api_pb2.PsiData:
    if line is None:
        return api_pb2.PsiData()
    return api_pb2.PsiData(Total=line.total_ns, Avg10=line.avg10, Avg60=line.avg60, Avg300=line.avg300)


def cpu_message(sample: CpuSample, nano_cores: int | None) -> api_pb2.CpuUsage:
    """CpuUsage."""
    return api_pb2.CpuUsage(
        timestamp=sample.timestamp,
        usage_core_nano_seconds=_Value(value=sample.usage),
        usage_nano_cores=_optional(nano_cores),
        psi=psi_message(sample.psi),
    )


def memory_message(sample: MemorySample) -> api_pb2.MemoryUsage:
    """MemoryUsage; `available_bytes` is unset without a limit."""
    return api_pb2.MemoryUsage(
        timestamp=sample.timestamp,
        working_set_bytes=_Value(value=sample.working_set),
        available_bytes=_optional(sample.available),
        usage_bytes=_Value(value=sample.usage),
        rss_bytes=_Value(value=sample.rss),
        page_faults=_Value(value=sample.page_faults),
        major_page_faults=_Value(value=sample.major_page_faults),
        psi=psi_message(sample.psi),
    )


def swap_message(sample: MemorySample) -> api_pb2.SwapUsage | None:
    """SwapUsage; unset where the kernel does not account swap, `available` unset without a limit."""
    if sample.swap is None:
        return None
    available = None if sample.swap_limit is None else max(sample.swap_limit - sample.swap, 0)
    return api_pb2.SwapUsage(
        timestamp=sample.timestamp,
        swap_available_bytes=_optional(available),
        swap_usage_bytes=_Value(value=sample.swap),
    )


def io_message(sample: IoSample) -> api_pb2.IoUsage:
    """IoUsage."""
    return api_pb2.IoUsage(timestamp=sample.timestamp, psi=psi_message(sample.psi))


def layer_message(usage: LayerUsage) -> api_pb2.FilesystemUsage:
    """FilesystemUsage of a writable layer."""
    return api_pb2.FilesystemUsage(
        timestamp=usage.timestamp,
        fs_id=api_pb2.FilesystemIdentifier(mountpoint=usage.mountpoint),
        used_bytes=_Value(value=usage.used_bytes),
        inodes_used=_Value(value=usage.inodes_used),
    )


def network_message(timestamp: int, interfaces: Sequence[InterfaceCounters]) -> api_pb2.NetworkUsage:
    """NetworkUsage: the default interface is eth0 if there is one, else the first."""
    items = [_interface(item) for item in interfaces]
    default = next((item for item in items if item.name == DEFAULT_INTERFACE), items[0] if items else None)
    return api_pb2.NetworkUsage(timestamp=timestamp, default_interface=default, interfaces=items)


def _interface(item: InterfaceCounters) -> api_pb2.NetworkInterfaceUsage:
    return api_pb2.NetworkInterfaceUsage(
        name=item.name,
        rx_bytes=_Value(value=item.rx_bytes),
        rx_errors=_Value(value=item.rx_errors),
        tx_bytes=_Value(value=item.tx_bytes),
        tx_errors=_Value(value=item.tx_errors),
    )


def _optional(value: int | None) -> api_pb2.UInt64Value | None:
    return None if value is None else _Value(value=value)
