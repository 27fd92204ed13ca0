"""Processes that are known by a variable of their environment alone: what a killed daemon left at work."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from triptych_linux import pidfd
from triptych_linux.pidfd import ProcessIdentity


def find(
    variable: str, values: Collection[str], candidate: Callable[[int], bool]
) -> Iterator[ProcessIdentity]:
    """Processes whose program was started with a variable that has one of these values. Blocking.

    :param candidate: whether a PID may be one of them; asked first, since reading the environment of a
        process can hang with that process. It may raise OSError for one that is gone.
    """
    wanted = {f"{variable}={value}".encode() for value in values}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if not candidate(int(entry.name)):
                continue
            # Before the environment: what is read of it then is this process's, or the identity is stale.
            identity = ProcessIdentity.of(int(entry.name))
            environment = Path("/proc", entry.name, "environ").read_bytes()
            if not wanted.isdisjoint(environment.split(b"\0")):
                yield identity


async def kill(
    variable: str, values: Collection[str], candidate: Callable[[int], bool], *, deadline: float
) -> list[ProcessIdentity]:
    """SIGKILL what `find` finds, and what that has started meanwhile; returns all of it, ended.

    :param deadline: seconds.
    :raises TimeoutError: when one is still there then (a process in D state), or cannot be looked at.
    """
    killed: list[ProcessIdentity] = []
    async with asyncio.timeout(deadline):
        while found := await asyncio.to_thread(lambda: list(find(variable, values, candidate))):
            await asyncio.gather(*(pidfd.kill(identity) for identity in found))
            killed += found
    return killed
