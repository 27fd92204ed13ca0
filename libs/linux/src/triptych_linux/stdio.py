"""Whom the standard streams of processes in containers belong to."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator

_ALL = [(0, 0, 4294967295)]
_NULL = os.makedev(1, 3)


def give_pipes(pipes: Iterable[int | str], pid: int, uid: int, gid: int) -> None:
    """Give pipes to a user of the user namespace of process `pid`; what is no pipe stays as it is.

    The user wants to open them again, as /dev/stdout. OCI runtimes do so themselves, but not for a user
    namespace: once they are in it, it is too late, and the root of the host is nobody there. Nothing happens
    without one, or when the process is gone.

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


@contextlib.contextmanager
def empty_pipe() -> Iterator[int]:
    """The end of a pipe that nobody writes to: an input that is no device of the node (`keep_null`)."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.close(write)
    try:
        yield read
    finally:
        os.close(read)


def keep_null(path: str = "/dev/null") -> None:
    """Take the null device of the node back, once crun has started something with it.

    crun makes all standard streams belong to the user of what it starts. One that has this device as input
    can change its mode, in a user namespace too, and nobody on the node could open it any more.
    """
    status = os.stat(path)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _NULL:
        return
    with contextlib.suppress(PermissionError):  # in a container whose null device is of another's making
        if (status.st_uid, status.st_gid) != (0, 0):
            os.chown(path, 0, 0)
            os.chmod(path, 0o666)


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
