"""Whom the pipes of a process belong to, which wants to open them again as /dev/stdout."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

_ALL = [(0, 0, 4294967295)]


def give_pipes(pipes: Iterable[int | str], pid: int, uid: int, gid: int) -> None:
    """Give pipes to a user of the user namespace of process `pid`; what is no pipe stays as it is.

    OCI runtimes do so themselves, but not for a user namespace: once they are in it, it is too late, and the
    root of the host is nobody there. Nothing happens without one, or when the process is gone.

    :param pipes: descriptors, or paths such as /proc/PID/fd/1.
    :param uid, gid: as that user namespace has them.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        users = _map(pid, "uid_map")
        if users == _ALL:
            return
        owner, group = _outside(users, uid), _outside(_map(pid, "gid_map"), gid)
        for pipe in pipes:
            if stat.S_ISFIFO(os.stat(pipe).st_mode):
                os.chown(pipe, owner, group)


def _map(pid: int, name: str) -> list[tuple[int, ...]]:
    """Lines of inside, outside and count, as user_namespaces(7) has them."""
    with open(f"/proc/{pid}/{name}") as file:
        return [tuple(map(int, line.split())) for line in file]


def _outside(mapping: list[tuple[int, ...]], identity: int) -> int:
    """What an ID of the user namespace is outside of it; for one that it lacks -1, which chown(2) skips."""
    for inside, outside, count in mapping:
        if inside <= identity < inside + count:
            return outside + identity - inside
    return -1
