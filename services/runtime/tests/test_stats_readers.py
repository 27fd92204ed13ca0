"""Parsing of control files, on fake trees for cgroup v1 and v2."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from triptych_runtime.cgroups import Cgroup, Layout, Mode
from triptych_runtime.stats import files, readers
from triptych_runtime.stats.blockio import BlockIo, read_block_io
from triptych_runtime.stats.network import parse_net_dev

PSI = "some avg10=1.50 avg60=2.25 avg300=0.10 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=56\n"

V2 = {
    "cpu.stat": "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\n",
    "cpu.pressure": PSI,
    "memory.current": "1000000\n",
    "memory.max": "max\n",
    "memory.stat": "anon 400000\nfile 300000\ninactive_file 250000\npgfault 12\npgmajfault 3\n",
    "memory.swap.current": "100\n",
    "memory.swap.max": "1000\n",
    "memory.pressure": PSI,
    "io.pressure": PSI,
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:1 rbytes=5\n",
}
V1 = {
    "cpuacct/cpuacct.usage": "5000000\n",
    "memory/memory.usage_in_bytes": "1000000\n",
    "memory/memory.limit_in_bytes": "4000000\n",
    "memory/memory.memsw.limit_in_bytes": "5000000\n",
    "memory/memory.stat": (
        "rss 1\ninactive_file 2\ntotal_rss 400000\ntotal_inactive_file 250000\ntotal_swap 100\n"
        "total_pgfault 12\ntotal_pgmajfault 3\n"
    ),
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
    "blkio/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
}


def v2_group(root: Path) -> Cgroup:
    for name, text in V2.items():
        (root / name).write_text(text)
    return Cgroup.at(Layout(Mode.UNIFIED, {}, root, {}), "/")


def v1_group(root: Path) -> Cgroup:
    for name, text in V1.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    v1 = {name: root / name for name in ("cpuacct", "memory", "blkio")}
    return Cgroup.at(Layout(Mode.LEGACY, v1, None, {}), "/")


def test_cpu(tmp_path: Path) -> None:
    for made in (v2_group(tmp_path), v1_group(tmp_path)):
        sample = readers.read_cpu(made)
        assert sample is not None
        assert sample.usage == 5_000_000
        assert (sample.psi is None) == (made.mode is Mode.LEGACY)


def test_memory_v2(tmp_path: Path) -> None:
    sample = readers.read_memory(v2_group(tmp_path))
    assert sample is not None
    assert (sample.usage, sample.working_set, sample.rss) == (1_000_000, 750_000, 400_000)
    assert (sample.page_faults, sample.major_page_faults) == (12, 3)
    assert sample.limit is None and sample.available is None
    assert (sample.swap, sample.swap_limit) == (100, 1000)


def test_memory_v1(tmp_path: Path) -> None:
    sample = readers.read_memory(v1_group(tmp_path))
    assert sample is not None
    assert (sample.usage, sample.working_set, sample.rss) == (1_000_000, 750_000, 400_000)
    assert sample.limit == 4_000_000
    assert sample.available == 3_250_000
    # v1 limits memory and swap together; ours is swap alone.
    assert (sample.swap, sample.swap_limit) == (100, 1_000_000)


def test_memory_v1_without_limit_or_swap_accounting(tmp_path: Path) -> None:
    made = v1_group(tmp_path)
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory/memory.stat").write_text("total_rss 5\n")
    sample = readers.read_memory(made)
    assert sample is not None
    assert sample.limit is None and sample.available is None
    assert sample.swap is None and sample.swap_limit is None
    assert sample.working_set == sample.usage


def test_working_set_is_never_negative(tmp_path: Path) -> None:
    made = v2_group(tmp_path)
    (tmp_path / "memory.current").write_text("100\n")
    sample = readers.read_memory(made)
    assert sample is not None and sample.working_set == 0


def test_a_cgroup_that_is_gone(tmp_path: Path) -> None:
    gone = Cgroup.at(Layout(Mode.UNIFIED, {}, tmp_path, {}), "/gone")
    assert readers.read_cpu(gone) is None
    assert readers.read_memory(gone) is None
    assert readers.read_io(gone) is None
    assert read_block_io(gone) == []


def test_pressure() -> None:
    psi = files.pressure(PSI.encode())
    assert psi is not None and psi.some is not None and psi.full is not None
    assert (psi.some.total_ns, psi.some.avg10, psi.some.avg60) == (1_234_000, 1.5, 2.25)
    assert psi.full.total_ns == 56_000
    only_some = files.pressure(PSI.splitlines()[0].encode())
    assert only_some is not None and only_some.full is None
    assert files.pressure(None) is None
    assert files.pressure(b"") is None


def test_block_io(tmp_path: Path) -> None:
    assert read_block_io(v2_group(tmp_path)) == [BlockIo(8, 0, 10, 20, 1, 2), BlockIo(253, 1, 5, 0, 0, 0)]
    assert read_block_io(v1_group(tmp_path)) == [BlockIo(8, 0, 10, 20, 1, 2)]


def test_net_dev() -> None:
    text = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n"
        "    lo:     100       1    0    0    0     0          0         0      100       1    0    0\n"
        "  eth0: 1111 22 3 4 0 0 0 0 5555 66 7 8 0 0 0 0\n"
    )
    (item,) = parse_net_dev(text)
    assert item.name == "eth0"
    assert (item.rx_bytes, item.rx_packets, item.rx_errors, item.rx_dropped) == (1111, 22, 3, 4)
    assert (item.tx_bytes, item.tx_packets, item.tx_errors, item.tx_dropped) == (5555, 66, 7, 8)


@given(st.dictionaries(st.from_regex(rb"[a-z_]{1,20}", fullmatch=True), st.integers(0, 1 << 64)))
def test_flat_reads_what_the_kernel_writes(values: dict[bytes, int]) -> None:
    data = b"".join(b"%s %d\n" % item for item in values.items())
    assert files.flat(data) == values


@pytest.mark.parametrize(("text", "expected"), [("12\n", 12), ("max\n", None), ("", None), ("-1\n", -1)])
def test_number(tmp_path: Path, text: str, expected: int | None) -> None:
    (tmp_path / "file").write_text(text)
    assert files.number(str(tmp_path), "file") == expected
