"""A user namespace and the namespaces it owns, made by a short-lived process.

A process with threads cannot enter or make a user namespace (unshare(2)), so util-linux's unshare does and
becomes `cat`, which answers one byte to say that it is there and ends when its input is closed. All else is
done from outside: the mappings are written, the namespaces pinned and set up.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from triptych_linux import process
from triptych_linux.namespaces import Namespace

from triptych_runtime.namespaces.errors import MappingInvalid, NamespacesUnsupported
from triptych_runtime.namespaces.model import IdMapping, UserMappings

_OPTIONS = {Namespace.NETWORK: "--net", Namespace.IPC: "--ipc", Namespace.UTS: "--uts"}
_MAX_ID = (1 << 32) - 2
_MAX_EXTENTS = 340


@asynccontextmanager
async def holder(kinds: Sequence[Namespace], users: UserMappings, deadline: float) -> AsyncIterator[int]:
    """The PID of a process that holds a new user namespace, mapped, and new `kinds` owned by it.

    :raises NamespacesUnsupported: when the kernel refuses to make them.
    :raises MappingInvalid: when it refuses the mappings.
    """
    argv = ["unshare", "--user", *(_OPTIONS[kind] for kind in kinds), "--", "cat"]
    child = await process.spawn(
        argv, step="make a user namespace", stdin=process.PIPE, stdout=process.PIPE, stderr=process.PIPE
    )
    try:
        assert child.popen.stdin and child.popen.stdout and child.popen.stderr
        os.write(child.popen.stdin.fileno(), b"x")
        if not await _readable(child.popen.stdout.fileno(), deadline):
            complaint = child.popen.stderr.read().decode(errors="replace").strip()
            raise NamespacesUnsupported(
                f"make a user namespace: {complaint or 'unshare ended'}",
                hint="see user.max_user_namespaces and kernel.unprivileged_userns_clone",
            )
        _write_map(child.pid, "uid_map", users.uids)
        _write_map(child.pid, "gid_map", users.gids)
        yield child.pid
    finally:
        await child.close()


async def _readable(fd: int, deadline: float) -> bool:
    """Wait for one byte; False at the end of the pipe."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(deadline):
            await ready.wait()
    except TimeoutError:
        raise NamespacesUnsupported(f"make a user namespace: no answer after {deadline:g} s") from None
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 1) != b""


def _write_map(pid: int, name: str, mappings: tuple[IdMapping, ...]) -> None:
    text = "".join(f"{m.container_id} {m.host_id} {m.length}\n" for m in mappings)
    try:
        with Path(f"/proc/{pid}/{name}").open("wb", buffering=0) as file:
            file.write(text.encode())
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EPERM):
            raise MappingInvalid(f"{name}: the kernel refuses {text.strip()!r}") from error
        raise


def check(users: UserMappings) -> None:
    """Refuse mappings that the kernel would: empty, beyond 32 bits, overlapping (user_namespaces(7)).

    :raises MappingInvalid: naming the range.
    """
    for kind, mappings in (("uid", users.uids), ("gid", users.gids)):
        if not mappings:
            raise MappingInvalid(f"user namespace: no {kind} mapping")
        if len(mappings) > _MAX_EXTENTS:
            raise MappingInvalid(f"user namespace: {len(mappings)} {kind} mappings, at most {_MAX_EXTENTS}")
        for mapping in mappings:
            ends = (mapping.container_id + mapping.length, mapping.host_id + mapping.length)
            if (
                mapping.length < 1
                or min(mapping.container_id, mapping.host_id) < 0
                or max(ends) > _MAX_ID + 1
            ):
                raise MappingInvalid(f"user namespace: {kind} mapping {_text(mapping)} is out of range")
        _no_overlap(kind, [(m.container_id, m.length) for m in mappings], "container")
        _no_overlap(kind, [(m.host_id, m.length) for m in mappings], "host")


def _no_overlap(kind: str, ranges: list[tuple[int, int]], side: str) -> None:
    end = 0
    for start, length in sorted(ranges):
        if start < end:
            raise MappingInvalid(f"user namespace: {kind} mappings overlap at {side} ID {start}")
        end = start + length


def _text(mapping: IdMapping) -> str:
    return f"{mapping.container_id}:{mapping.host_id}:{mapping.length}"
