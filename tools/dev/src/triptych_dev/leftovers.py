"""What a host has before and after: links, mounts, cgroups, namespaces, packet rules, processes.

Other things may happen on a host meanwhile. So what is new is split in two: what bears a mark of ours (a
path, the bridge and the interfaces seen on it, the subnet, an ID), and the rest.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from triptych_dev.patience import PATIENCE

State = dict[str, frozenset[str]]
_COUNTERS = re.compile(r"\[\d+:\d+\]|packets \d+ bytes \d+")
_SETTLE_SECONDS = 5.0 * PATIENCE


@dataclass(slots=True)
class Marks:
    """What tells our things from others'.

    :param texts: a new thing that contains one of these is ours.
    :param links: names of interfaces; more are learnt by `learn`.
    :param expected: whether a thing of a kind may be left, although it is ours.
    """

    texts: set[str]
    bridge: str
    links: set[str] = field(default_factory=set)
    expected: Callable[[str, str], bool] = lambda kind, thing: False

    def learn(self, *ids: str) -> None:
        """Note IDs of pods and containers, and the interfaces on our bridge now."""
        self.texts.update(ids)
        self.links |= {self.bridge, *_ports(self.bridge)}

    def owns(self, kind: str, thing: str) -> bool:
        """Whether a thing bears a mark, and must go."""
        if self.expected(kind, thing):
            return False
        if kind == "links":
            return thing in self.links or thing == self.bridge
        return any(text in thing for text in self.texts)


@dataclass(frozen=True, slots=True)
class Difference:
    """What is new, by kind.

    :param ours: must not be there.
    :param others: came meanwhile and is somebody else's.
    """

    ours: dict[str, list[str]]
    others: dict[str, list[str]]

    @property
    def clean(self) -> bool:
        return not any(self.ours.values())


def snapshot() -> State:
    """What is there now, by kind."""
    return {name: frozenset(read()) for name, read in KINDS.items()}


def compare(before: State, marks: Marks) -> Difference:
    """What is new since `before`; what is about to go is given some seconds to."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        found = _difference(before, snapshot(), marks)
        if found.clean or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _difference(before: State, after: State, marks: Marks) -> Difference:
    ours: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for kind, things in after.items():
        new = sorted(things - before[kind])
        ours[kind] = [thing for thing in new if marks.owns(kind, thing)]
        others[kind] = [thing for thing in new if not marks.owns(kind, thing)]
    return Difference(ours, others)


def _links() -> Iterable[str]:
    return os.listdir("/sys/class/net")


def _ports(bridge: str) -> list[str]:
    try:
        return os.listdir(f"/sys/class/net/{bridge}/brif")
    except OSError:
        return []


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield line.split(" ")[4].encode().decode("unicode_escape")


def _cgroups() -> Iterator[str]:
    for directory, _, _ in os.walk("/sys/fs/cgroup"):
        yield directory


def _namespaces() -> Iterator[str]:
    for place in ("/run/netns", "/var/run/docker/netns"):
        if os.path.isdir(place):
            yield from (f"{place}/{name}" for name in os.listdir(place))


def _rules() -> Iterator[str]:
    commands = (["iptables-save"], ["ip6tables-save"], ["nft", "-s", "list", "ruleset"])
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except FileNotFoundError:
            continue
        for line in done.stdout.splitlines():
            if line.strip() and not line.startswith("#"):
                yield f"{command[0]}: {_COUNTERS.sub('', line).strip()}"


def _processes() -> Iterator[str]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").strip()
                started = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[19]
                group = Path(f"/proc/{entry}/cgroup").read_text().replace("\n", " ")
            except OSError:
                continue
            if command:
                yield f"{entry} ({command.decode(errors='replace')[:200]}) @{started} {group}"


def _directories() -> Iterator[str]:
    for place in ("/run", "/var/lib", "/var/lib/cni", "/var/lib/cni/networks", "/var/log", "/var/log/pods"):
        if os.path.isdir(place):
            yield from (f"{place}/{name}" for name in os.listdir(place))


KINDS: dict[str, Callable[[], Iterable[str]]] = {
    "links": _links,
    "mounts": _mounts,
    "cgroups": _cgroups,
    "network namespaces": _namespaces,
    "packet rules": _rules,
    "processes": _processes,
    "directories": _directories,
}


def describe(difference: Difference) -> str:
    """For an error: what was left, one line each."""
    return json.dumps({kind: things for kind, things in difference.ours.items() if things}, indent=1)
