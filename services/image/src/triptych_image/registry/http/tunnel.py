"""Asking a proxy for a way to an origin: CONNECT (RFC 9110) and SOCKS5 (RFC 1928, 1929)."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from triptych_image.registry.http.origin import Origin
from triptych_image.registry.http.proxies import Proxy
from triptych_image.registry.http.stream import Stream

_MAX_CONNECT_HEAD: Final = 16 << 10

_VERSION: Final = 5
_NO_LOGIN: Final = 0
_LOGIN: Final = 2
_IPV4, _NAME, _IPV6 = 1, 3, 4
# RFC 1928, section 6.
_REFUSALS: Final = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}


async def connect_tunnel(stream: Stream, origin: Origin, proxy: Proxy) -> None:
    """Ask an HTTP proxy for a tunnel.

    :raises ConnectionError: when it refuses.
    """
    target = f"{origin.bracketed}:{origin.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: triptych"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    await stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
    head = b""
    buffer = memoryview(bytearray(4096))
    while b"\r\n\r\n" not in head:
        # Nothing of what follows can be lost: the other side of the tunnel waits for our TLS hello.
        count = await stream.read_into(buffer)
        head += buffer[:count]
        if not count or len(head) > _MAX_CONNECT_HEAD:
            raise ConnectionError("no answer to CONNECT")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if status is None or not status[1].startswith(b"2"):
        line = head.partition(b"\r\n")[0].decode("latin-1")
        raise ConnectionError(f"CONNECT refused: {line[:100]}")


async def socks5(stream: Stream, origin: Origin, proxy: Proxy) -> None:
    """Have a SOCKS5 proxy connect to an origin; it looks the name up.

    :raises ConnectionError: when it refuses.
    """
    await _greet(stream, proxy)
    await stream.send_all(bytes((_VERSION, 1, 0)) + _address(origin) + origin.port.to_bytes(2, "big"))
    version, reply, _, kind = await _exactly(stream, 4)
    if version != _VERSION:
        raise ConnectionError("it does not speak SOCKS5")
    if reply != 0:
        raise ConnectionError(f"SOCKS5: {_REFUSALS.get(reply, f'error {reply}')}")
    sizes = {_IPV4: 4, _IPV6: 16}
    size = (await _exactly(stream, 1))[0] if kind == _NAME else sizes.get(kind)
    if size is None:
        raise ConnectionError(f"SOCKS5: answer with an address of unknown type {kind}")
    await _exactly(stream, size + 2)


async def _greet(stream: Stream, proxy: Proxy) -> None:
    """Agree on a method, and log in when the proxy's URL says as whom."""
    methods = (_NO_LOGIN,) if proxy.username is None else (_NO_LOGIN, _LOGIN)
    await stream.send_all(bytes((_VERSION, len(methods), *methods)))
    version, method = await _exactly(stream, 2)
    if version != _VERSION:
        raise ConnectionError("it does not speak SOCKS5")
    if method == _NO_LOGIN:
        return
    if method != _LOGIN or proxy.username is None:
        raise ConnectionError("SOCKS5: it wants a login that its URL does not give")
    user, password = proxy.username.encode(), proxy.password.encode()
    await stream.send_all(bytes((1, len(user))) + user + bytes((len(password),)) + password)
    _, status = await _exactly(stream, 2)
    if status != 0:
        raise ConnectionError("SOCKS5: the login is not accepted")


def _address(origin: Origin) -> bytes:
    try:
        literal = ipaddress.ip_address(origin.host)
    except ValueError:
        name = origin.host.encode("ascii")
        if len(name) > 255:
            raise ConnectionError("SOCKS5: the host's name is longer than 255 bytes") from None
        return bytes((_NAME, len(name))) + name
    return bytes((_IPV4 if literal.version == 4 else _IPV6,)) + literal.packed


async def _exactly(stream: Stream, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    got = 0
    while got < size:
        count = await stream.read_into(buffer[got:])
        if not count:
            raise ConnectionError("SOCKS5: connection closed")
        got += count
    return bytes(buffer)
