"""What processes cost a node in memory.

PSS (proc(5)) divides each shared page by the number of its users, whoever they are: a benchmark written in
Python next to daemons written in Python makes them look smaller. So a group is also measured as if nobody
else used its files: what is private or anonymous, and each file's pages once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a group of processes.

    :param pss: the sum of their proportional set sizes.
    :param alone: what they would take on a node where nobody else maps the same files.
    """

    pss: int
    alone: int
    processes: int


def of_group(pids: Iterable[int]) -> Memory:
    """Measure processes; one that is gone counts nothing."""
    pss, anonymous, count = 0, 0, 0
    files: dict[str, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps").read_text()
            count += 1
            for key, sizes in _mappings(text):
                pss += sizes.get("Pss", 0)
                if not key:
                    anonymous += sizes.get("Pss", 0)
                    continue
                own = sizes.get("Anonymous", 0)
                anonymous += own
                files[key] = max(files.get(key, 0), sizes.get("Rss", 0) - own)
    return Memory(pss * 1024, (anonymous + sum(files.values())) * 1024, count)


def _mappings(text: str) -> Iterable[tuple[str, dict[str, int]]]:
    """Each mapping of an smaps file: what file and offset it maps ("" for none), its sizes in kB."""
    key, sizes = "", dict[str, int]()
    begun = False
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if " " in name or not name[0].isupper():
            if begun:
                yield key, sizes
            fields = line.split(maxsplit=5)
            key = f"{fields[3]} {fields[4]} {fields[2]}" if fields[4] != "0" else ""
            sizes, begun = {}, True
        elif rest.endswith("kB"):
            sizes[name] = int(rest.split()[0])
    if begun:
        yield key, sizes


def find(wanted: Callable[[str], bool]) -> list[int]:
    """Processes by their command line (arguments joined by blanks)."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = (
                Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
            if wanted(command):
                found.append(int(name))
    return found


def children(pids: Iterable[int]) -> list[int]:
    """The direct children of processes."""
    found = []
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found
