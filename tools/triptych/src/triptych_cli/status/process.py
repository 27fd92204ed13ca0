"""What the kernel knows of a daemon's process."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path


def listener_pid(path: str, program: str) -> int:
    """The process that listens on a unix socket, by SO_PEERCRED; 0 when that is somebody else.

    With socket activation the kernel names systemd, so the process's own name must fit.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.settimeout(1.0)
            probe.connect(path)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", credentials)[0]
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return 0
    return pid if program.encode() in line or program.replace("-", "_").encode() in line else 0


def uptime(pid: int) -> float:
    """Seconds since a process began; 0.0 when it is not there."""
    fields = _stat(pid)
    if not fields:
        return 0.0
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() if pid else []
    except OSError:
        return []


def proportional_set_size(pid: int) -> int:
    """Memory in bytes with shared pages divided among their users; 0 when it cannot be read."""
    if not pid:
        return 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
