"""Connected sockets: name lookup, and addresses racing each other."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

# RFC 8305: how long one address has before the next is tried beside it.
_STAGGER: Final = 0.3

_Address = tuple[int, tuple[object, ...]]


async def connect(host: str, port: int) -> socket.socket:
    """A connected, non-blocking socket to the address that answers first.

    :raises OSError: of the address that was tried first, or of the lookup.
    """
    addresses = await _lookup(host, port)
    if len(addresses) == 1:
        return await _connect_one(*addresses[0])
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    queue = list(addresses)
    try:
        while queue or pending:
            if queue:
                pending.add(loop.create_task(_connect_one(*queue.pop(0))))
            done, pending = await asyncio.wait(
                pending, timeout=_STAGGER if queue else None, return_when=asyncio.FIRST_COMPLETED
            )
            errors += [error for task in done if isinstance(error := task.exception(), OSError)]
            if winners := [task.result() for task in done if task.exception() is None]:
                for late in winners[1:]:
                    late.close()
                return winners[0]
        raise errors[0]
    finally:
        for task in pending:
            task.cancel()
        for outcome in await asyncio.gather(*pending, return_exceptions=True):
            if isinstance(outcome, socket.socket):
                outcome.close()


async def _connect_one(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _lookup(host: str, port: int) -> Sequence[_Address]:
    """Addresses of a host, families alternating, the resolver's preferred one first."""
    try:
        literal = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    else:
        family = socket.AF_INET if literal.version == 4 else socket.AF_INET6
        if "%" not in host:
            return [(family, (host, port))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    first = [(family, address) for family, _, _, _, address in found if family == found[0][0]]
    other = [(family, address) for family, _, _, _, address in found if family != found[0][0]]
    mixed: list[_Address] = []
    for index in range(max(len(first), len(other))):
        mixed += first[index : index + 1] + other[index : index + 1]
    return mixed
