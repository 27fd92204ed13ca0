"""Reading and parsing of control files: bytes in, numbers out, no exceptions for what a kernel lacks."""

from __future__ import annotations

import os
from dataclasses import dataclass

_SIZE = 1 << 15


def read(directory: str, name: str) -> bytes | None:
    """A control file, or None when it or its cgroup does not exist."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, _SIZE)
    except OSError:
        return None
    finally:
        os.close(fd)


def number(directory: str, name: str) -> int | None:
    """A file with one number; None when it does not exist or says "max"."""
    data = read(directory, name)
    if data is None or not data.strip().lstrip(b"-").isdigit():
        return None
    return int(data)


def flat(data: bytes | None) -> dict[bytes, int]:
    """A flat-keyed file: lines of a key and a number ("flat keyed" in cgroup-v2.rst)."""
    words = (data or b"").split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def nested(data: bytes | None) -> dict[bytes, dict[bytes, int]]:
    """A nested-keyed file such as io.stat: lines of a key and key=number pairs."""
    found: dict[bytes, dict[bytes, int]] = {}
    for line in (data or b"").splitlines():
        key, *pairs = line.split()
        values = (pair.partition(b"=") for pair in pairs)
        found[key] = {name: int(value) for name, _, value in values if value.isdigit()}
    return found


@dataclass(frozen=True, slots=True)
class PressureLine:
    """One line of a pressure file (psi.rst).

    :param total_ns: time stalled since the cgroup was made, in nanoseconds.
    :param avg10, avg60, avg300: percent of time stalled in the last 10, 60 and 300 seconds.
    """

    total_ns: int
    avg10: float
    avg60: float
    avg300: float


@dataclass(frozen=True, slots=True)
class Pressure:
    """A pressure file; `full` is None on kernels that have no such line for CPU (before 5.13)."""

    some: PressureLine | None
    full: PressureLine | None


def pressure(data: bytes | None) -> Pressure | None:
    """Parse a pressure file; None when the kernel has none (CONFIG_PSI off or disabled at boot)."""
    if not data:
        return None
    lines: dict[bytes, PressureLine] = {}
    for line in data.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split(b"=", 1) for pair in pairs)
        lines[kind] = PressureLine(
            # The kernel says microseconds, the CRI wants nanoseconds.
            int(values[b"total"]) * 1000,
            float(values[b"avg10"]),
            float(values[b"avg60"]),
            float(values[b"avg300"]),
        )
    return Pressure(lines.get(b"some"), lines.get(b"full"))
