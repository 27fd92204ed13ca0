"""The instances of a daemon that take from one socket, each asked by its own address.

The kernel chooses who answers on the shared one, so an answer there is about any of them. A daemon that was
passed its socket serves `SOCKET.PID` beside it.
"""

from __future__ import annotations

import glob
import socket
from dataclasses import replace
from pathlib import Path

from triptych_cli.context import Context, DaemonName

_SECONDS = 1.0


def instances(context: Context, name: DaemonName) -> tuple[Context, ...]:
    """The context once for each instance, with that one's address; as it is where one serves alone."""
    shared = Path(context.sockets[name])
    beside = {
        path.name.rpartition(".")[2]: path for path in shared.parent.glob(f"{glob.escape(shared.name)}.*")
    }
    found = [beside[pid] for pid in sorted(filter(str.isdecimal, beside), key=int) if _listens(beside[pid])]
    if len(found) < 2:
        return (context,)
    return tuple(replace(context, sockets={**context.sockets, name: str(path)}) for path in found)


def _listens(path: Path) -> bool:
    """Whether anybody does; one that was killed leaves its path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(_SECONDS)
        return probe.connect_ex(str(path)) == 0
