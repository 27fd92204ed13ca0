"""Numbers that test sessions on one node take, so that those that run at once get in nobody's way."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

_LOCKS = Path("/tmp/triptych-turns")
_held: list[int] = []


def take(count: int, busy: Callable[[int], bool]) -> int:
    """A number below `count` that nobody else has; this process has it until it ends.

    :param busy: whether a session that was killed left something under a number.
    :raises RuntimeError: when all are taken.
    """
    _LOCKS.mkdir(exist_ok=True)
    first = os.getpid()
    for number in ((first + step) % count for step in range(count)):
        if busy(number):
            continue
        fd = os.open(_LOCKS / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        _held.append(fd)
        return number
    raise RuntimeError(f"all {count} numbers of test sessions are taken: see {_LOCKS} and /run")
