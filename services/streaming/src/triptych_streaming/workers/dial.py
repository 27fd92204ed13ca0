"""Connections inside a network namespace, without a helper program.

A socket belongs to the namespace of the thread that made it, for good. So the event loop's own thread enters
the namespace, makes the socket, and is back before anything else runs in it: a few system calls that wait
for nothing, where a thread made for it would cost more than the rest of a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator

from triptych_linux import syscalls
from triptych_linux.namespaces import Namespace, enter

from triptych_streaming.errors import DialFailed

log = logging.getLogger(__name__)

_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def dial(namespace: str, port: int, *, deadline: float) -> socket.socket:
    """Connect to `port` on the loopback of a namespace, IPv4 first, then IPv6.

    :param namespace: a pinned namespace's path; "" for the host's.
    :raises DialFailed: neither takes the connection, or the namespace is gone.
    """
    failures: list[str] = []
    for family, host in _LOOPBACKS:
        try:
            return await _connect(_make(namespace, family), host, port, deadline)
        except TimeoutError:
            failures.append(f"{host}: no answer within {deadline:g} s")
        except OSError as error:
            failures.append(f"{host}: {os.strerror(error.errno or 0)}")
    raise DialFailed(f"failed to connect to port {port} in the pod's network: {'; '.join(failures)}")


async def _connect(candidate: socket.socket, host: str, port: int, deadline: float) -> socket.socket:
    try:
        async with asyncio.timeout(deadline):
            await asyncio.get_running_loop().sock_connect(candidate, (host, port))
        candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        candidate.close()
        raise
    return candidate


def _make(namespace: str, family: socket.AddressFamily) -> socket.socket:
    """A socket in a namespace.

    :raises DialFailed: the namespace is gone. :raises OSError: the kernel has no such family.
    """
    with _inside(namespace) if namespace else contextlib.nullcontext():
        return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """Be in a network namespace during the block; nothing in it may wait."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            enter(namespace, Namespace.NETWORK)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise DialFailed(f"cannot enter network namespace {namespace}: {reason}") from error
        try:
            yield
        finally:
            _return(home)
    finally:
        os.close(home)


def _return(home: int) -> None:
    try:
        syscalls.setns(home, Namespace.NETWORK.clone_flag)
    except OSError as error:
        # Whatever this process did from here on would happen in a pod.
        log.critical("cannot leave a pod's network namespace", extra={"error": str(error)})
        os._exit(70)
