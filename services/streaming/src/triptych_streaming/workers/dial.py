"""Connections inside a network namespace, without a helper program.

A socket belongs to the namespace of the thread that made it, for good. So a thread enters the namespace just
to make the socket; connecting is the event loop's.
"""

from __future__ import annotations

import asyncio
import os
import socket

from triptych_linux.namespaces import Namespace, enter, in_thread

from triptych_streaming.errors import DialFailed

_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def dial(namespace: str, port: int, *, deadline: float) -> socket.socket:
    """Connect to `port` on the loopback of a namespace, IPv4 first, then IPv6.

    :param namespace: a pinned namespace's path; "" for the host's.
    :raises DialFailed: neither takes the connection, or the namespace is gone.
    """
    try:
        sockets = await in_thread(lambda: _make(namespace)) if namespace else _make("")
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise DialFailed(f"port {port}: cannot enter network namespace {namespace}: {reason}") from error
    failures: list[str] = []
    connected: socket.socket | None = None
    try:
        for index, (_, host) in enumerate(_LOOPBACKS):
            candidate = sockets[index]
            if candidate is None:
                failures.append(f"{host}: not supported")
                continue
            try:
                async with asyncio.timeout(deadline):
                    await asyncio.get_running_loop().sock_connect(candidate, (host, port))
                candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected = candidate
                return candidate
            except TimeoutError:
                failures.append(f"{host}: no answer within {deadline:g} s")
            except OSError as error:
                failures.append(f"{host}: {os.strerror(error.errno or 0)}")
    finally:
        for each in sockets:
            if each is not None and each is not connected:
                each.close()
    raise DialFailed(f"failed to connect to port {port} in the pod's network: {'; '.join(failures)}")


def _make(namespace: str) -> list[socket.socket | None]:
    """One socket for each family that the kernel has."""
    if namespace:
        enter(namespace, Namespace.NETWORK)
    made: list[socket.socket | None] = []
    for family, _ in _LOOPBACKS:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        except OSError:
            made.append(None)
        else:
            made.append(sock)
    return made
