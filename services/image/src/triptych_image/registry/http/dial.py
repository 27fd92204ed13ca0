"""Opening connections: name lookup, racing addresses, proxies, TLS."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Sequence
from typing import Final

from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http.origin import Origin
from triptych_image.registry.http.proxies import Proxy
from triptych_image.registry.http.stream import Stream

# RFC 8305: how long one address has before the next is tried beside it.
_STAGGER: Final = 0.3
_MAX_CONNECT_HEAD: Final = 16 << 10

_Address = tuple[int, tuple[object, ...]]


class NotTls(Exception):
    """The peer answered the TLS handshake with something that is no TLS."""


async def dial(
    origin: Origin, context: ssl.SSLContext | None, proxy: Proxy | None, seconds: float
) -> Stream:
    """Connect to an origin, over a proxy when given, with TLS when a context is given.

    :raises AttemptFailed: UNREACHABLE, or UNTRUSTED when the certificate is not accepted.
    :raises NotTls: when the peer does not speak TLS.
    """
    host = origin.authority
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(seconds):
            sock = await _connect(*((proxy.host, proxy.port) if proxy else (origin.host, origin.port)))
            if proxy is not None and context is not None:
                await _tunnel(sock, origin, proxy)
            if context is None:
                return Stream(sock)
            sock = context.wrap_socket(sock, server_hostname=origin.host, do_handshake_on_connect=False)
            stream = Stream(sock)
            await stream.handshake()
            return stream
    except TimeoutError:
        _close(sock)
        raise AttemptFailed(Failure.UNREACHABLE, host, f"no connection within {seconds:g} s") from None
    except ssl.SSLCertVerificationError as error:
        _close(sock)
        raise AttemptFailed(
            Failure.UNTRUSTED, host, f"TLS: {error.verify_message or error.reason}"
        ) from None
    except ssl.SSLError as error:
        _close(sock)
        if error.reason in _NOT_TLS or isinstance(error, ssl.SSLEOFError):
            raise NotTls(str(error.reason or "connection closed in TLS handshake")) from None
        raise AttemptFailed(Failure.UNTRUSTED, host, f"TLS: {error.reason or error}") from None
    except OSError as error:
        _close(sock)
        if sock is not None and isinstance(sock, ssl.SSLSocket):
            raise NotTls("connection closed in TLS handshake") from None
        raise AttemptFailed(Failure.UNREACHABLE, host, _reason(error, origin, proxy)) from None
    except BaseException:
        _close(sock)
        raise


_NOT_TLS: Final = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "RECORD_LAYER_FAILURE",
        "PACKET_LENGTH_TOO_LONG",
        "UNKNOWN_PROTOCOL",
        "UNEXPECTED_EOF_WHILE_READING",
    }
)


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()


def _reason(error: OSError, origin: Origin, proxy: Proxy | None) -> str:
    name = proxy.host if proxy else origin.host
    if isinstance(error, socket.gaierror):
        return f"lookup {name}: {error.strerror or 'no such host'}"
    through = f"proxy {name}: " if proxy else ""
    # asyncio puts its own words into strerror.
    return through + (os.strerror(error.errno).lower() if error.errno else str(error))


async def _connect(host: str, port: int) -> socket.socket:
    """A connected, non-blocking socket to the address that answers first."""
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


async def _tunnel(sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
    """Ask an HTTP proxy for a tunnel (RFC 9110, CONNECT)."""
    loop = asyncio.get_running_loop()
    target = f"{origin.bracketed}:{origin.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: triptych"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head:
        # Nothing of what follows can be lost: the other side of the tunnel waits for our TLS hello.
        data = await loop.sock_recv(sock, 4096)
        head += data
        if not data or len(head) > _MAX_CONNECT_HEAD:
            raise ConnectionError("no answer to CONNECT")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if status is None or not status[1].startswith(b"2"):
        line = head.partition(b"\r\n")[0].decode("latin-1")
        raise ConnectionError(f"CONNECT refused: {line[:100]}")
