"""Packet rules that the portmap plugin leaves: its entry points stay when the last port is gone."""

from __future__ import annotations

import shlex
import shutil

from triptych_dev.node.shell import run

_ENTRY = "CNI-HOSTPORT-"
_OF_A_POD = "CNI-DN-"


def remove_entry_points() -> None:
    """Remove the plugin's entry points, unless a port of some pod, of ours or not, is behind them.

    The plugin makes them again when it needs them.
    """
    for program in ("iptables", "ip6tables"):
        if shutil.which(program) is None:
            continue
        table = [program, "-w", "-t", "nat"]
        listed = run([*table, "-S"], step="list packet rules", check=False)
        for words in removals(listed):
            run([*table, *words], step="remove packet rules", check=False)


def removals(listed: str) -> list[list[str]]:
    """What to tell iptables, from its own list of a table's rules (`-S`), in order."""
    lines = [shlex.split(line) for line in listed.splitlines()]
    chains = [words[1] for words in lines if words[:1] == ["-N"]]
    if any(name.startswith(_OF_A_POD) for name in chains):
        return []
    ours = [name for name in chains if name.startswith(_ENTRY)]
    jumps = [words for words in lines if words[:1] == ["-A"] and words[-1] in ours and words[1] not in ours]
    return [
        *(["-D", *words[1:]] for words in jumps),
        *(["-F", name] for name in ours),
        *(["-X", name] for name in ours),
    ]
