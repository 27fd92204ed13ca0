"""What a daemon and everything it starts take: CPU time by a cgroup, memory by looking often.

Children that end, and theirs, are counted by no parent when they are not waited for; a cgroup has them all.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from triptych_dev.benches import memory

_V1 = Path("/sys/fs/cgroup/cpuacct")
_V2 = Path("/sys/fs/cgroup")
_EVERY_SECONDS = 0.05
_FILES_EVERY = 20


class Group:
    """A cgroup for one daemon."""

    def __init__(self, name: str) -> None:
        top = _V1 if (_V1 / "cpuacct.usage").exists() else _V2
        self.directory = top / name
        self.directory.mkdir(exist_ok=True)

    def add(self, pid: int) -> None:
        """Move a process into it; its children follow."""
        (self.directory / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        """The processes in it."""
        return [int(line) for line in (self.directory / "cgroup.procs").read_text().split()]

    def cpu_seconds(self) -> float:
        """CPU time of everything that ever was in it."""
        old = self.directory / "cpuacct.usage"
        if old.exists():
            return int(old.read_text()) / 1e9
        for line in (self.directory / "cpu.stat").read_text().splitlines():
            if line.startswith("usage_usec"):
                return int(line.split()[1]) / 1e6
        return 0.0

    def remove(self) -> None:
        """Remove it; its processes have ended."""
        for _ in range(50):
            with contextlib.suppress(OSError):
                self.directory.rmdir()
            if not self.directory.exists():
                return
            time.sleep(0.1)


@dataclass(slots=True)
class Peak:
    """Looks at the memory of a group in a thread while it is entered.

    :ivar bytes: the most that it took: anonymous memory looked at 20 times a second, plus the most that its
        files took, each page once, looked at once a second.
    """

    group: Group
    _anonymous: int = 0
    _files: int = 0
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def bytes(self) -> int:
        return self._anonymous + self._files

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        count = 0
        while not self._end.wait(_EVERY_SECONDS):
            pids = self.group.pids()
            anonymous = sum(_anonymous(pid) for pid in pids)
            self._anonymous = max(self._anonymous, anonymous)
            if count % _FILES_EVERY == 2:
                self._files = max(self._files, memory.of_group(pids).alone - anonymous)
            count += 1


def _anonymous(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        size = 0
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                size += int(line.split()[1]) * 1024
        return size
    return 0


def drop_caches() -> None:
    """Write out and forget what the page cache holds, so that every turn reads the same from the disk."""
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")
