"""Interface counters of a pod's network namespace."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from triptych_linux import namespaces
from triptych_linux.namespaces import Namespace

from triptych_runtime.stats.subjects import InterfaceCounters

DEFAULT_INTERFACE = "eth0"
_LOOPBACK = "lo"


def parse_net_dev(text: str) -> list[InterfaceCounters]:
    """Parse /proc/net/dev (proc(5)), without the loopback interface."""
    found: list[InterfaceCounters] = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        name = name.strip()
        if name == _LOOPBACK:
            continue
        values = [int(word) for word in rest.split()]
        found.append(InterfaceCounters(name, *values[0:4], *values[8:12]))
    return found


def read_interfaces(netns: str, pids: Iterable[int]) -> list[InterfaceCounters]:
    """The interfaces of a namespace but loopback; none when the namespace is gone. Blocking.

    Read through a process that lives in it where there is one, which costs one file; else a thread
    enters it.

    :param pids: processes that should be in it.
    """
    try:
        wanted = os.stat(netns).st_ino
    except OSError:
        return []
    for pid in pids:
        try:
            # A privileged container may have gone into another one.
            if os.stat(f"/proc/{pid}/ns/net").st_ino == wanted:
                return parse_net_dev(Path(f"/proc/{pid}/net/dev").read_text())
        except OSError:
            continue

    def inside() -> str:
        namespaces.enter(netns, Namespace.NETWORK)
        return Path("/proc/thread-self/net/dev").read_text()

    try:
        return parse_net_dev(namespaces.run_in_thread(inside))
    except OSError:
        return []
