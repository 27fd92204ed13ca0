"""Block device counters of a cgroup."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from triptych_runtime.cgroups import Cgroup, Mode
from triptych_runtime.stats.files import nested, read

_V1_FILES = (
    # With the throttle files alone counted on kernels without the CFQ or BFQ scheduler.
    ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"),
    ("blkio.bfq.io_service_bytes_recursive", "blkio.bfq.io_serviced_recursive"),
)


@dataclass(frozen=True, slots=True)
class BlockIo:
    """What was read from and written to one block device."""

    major: int
    minor: int
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int


def read_block_io(cgroup: Cgroup) -> list[BlockIo]:
    """Counters by device; none when the cgroup did no block IO or is gone."""
    directory = cgroup.directory("blkio")
    if directory is None:
        return []
    if cgroup.mode is Mode.UNIFIED:
        return _v2(read(directory, "io.stat"))
    for bytes_name, count_name in _V1_FILES:
        found = _v1(read(directory, bytes_name), read(directory, count_name))
        if found:
            return found
    return []


def _v2(data: bytes | None) -> list[BlockIo]:
    found: list[BlockIo] = []
    for key, values in nested(data).items():
        major, minor = map(int, key.split(b":"))
        numbers = (values.get(name, 0) for name in (b"rbytes", b"wbytes", b"rios", b"wios"))
        found.append(BlockIo(major, minor, *numbers))
    return found


def _v1(sizes: bytes | None, counts: bytes | None) -> list[BlockIo]:
    by_device: dict[bytes, dict[bytes, int]] = {}
    for prefix, data in ((b"bytes", sizes), (b"count", counts)):
        for line in (data or b"").splitlines():
            words = line.split()
            # The last line is "Total 123", without a device.
            if len(words) == 3:
                by_device.setdefault(words[0], {})[prefix + words[1]] = int(words[2])
    found: list[BlockIo] = []
    for key, values in by_device.items():
        major, minor = map(int, key.split(b":"))
        names = (b"bytesRead", b"bytesWrite", b"countRead", b"countWrite")
        found.append(BlockIo(major, minor, *(values.get(name, 0) for name in names)))
    return found


@functools.lru_cache(maxsize=256)
def device_name(major: int, minor: int) -> str:
    """ "/dev/sda" for a block device; "major:minor" for one that has no node (overlayfs, btrfs)."""
    try:
        return "/dev/" + os.path.basename(os.readlink(f"/sys/dev/block/{major}:{minor}"))
    except OSError:
        return f"{major}:{minor}"
