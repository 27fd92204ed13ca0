"""Opening connections: directly or through a proxy, with TLS or without."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http.connect import connect
from triptych_image.registry.http.origin import Origin
from triptych_image.registry.http.proxies import Proxy, ProxyKind
from triptych_image.registry.http.stream import Stream
from triptych_image.registry.http.tunnel import connect_tunnel, socks5


class NotTls(Exception):
    """The peer answered the TLS handshake with something that is no TLS."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A proxy on the way; `context` when it is spoken to over TLS."""

    proxy: Proxy
    context: ssl.SSLContext | None


async def dial(origin: Origin, context: ssl.SSLContext | None, hop: Hop | None, seconds: float) -> Stream:
    """Connect to an origin, over a proxy when given, with TLS when a context is given.

    Without a context an HTTP proxy is to be told the whole URL.

    :raises AttemptFailed: UNREACHABLE, or UNTRUSTED when the certificate is not accepted.
    :raises NotTls: when the peer does not speak TLS.
    """
    try:
        async with asyncio.timeout(seconds):
            stream = await _reach(origin, hop, tunnel=context is not None)
            if context is not None:
                await _secure(stream, context, origin)
            return stream
    except TimeoutError:
        reason = f"no connection within {seconds:g} s"
        raise AttemptFailed(Failure.UNREACHABLE, origin.authority, reason) from None


async def _reach(origin: Origin, hop: Hop | None, *, tunnel: bool) -> Stream:
    """A stream to the origin, or to the HTTP proxy that is to forward to it."""
    host, port = (hop.proxy.host, hop.proxy.port) if hop else (origin.host, origin.port)
    through = f"proxy {host}: " if hop else ""
    stream: Stream | None = None
    try:
        stream = Stream(await connect(host, port))
        if hop is not None:
            if hop.context is not None:
                await stream.secure(hop.context, host)
            if hop.proxy.kind is ProxyKind.SOCKS5:
                await socks5(stream, origin, hop.proxy)
            elif tunnel:
                await connect_tunnel(stream, origin, hop.proxy)
    except BaseException as error:
        if stream is not None:
            stream.close()
        if isinstance(error, ssl.SSLError):
            reason = f"{through}TLS: {_tls_reason(error)}"
            raise AttemptFailed(Failure.UNTRUSTED, origin.authority, reason) from None
        if isinstance(error, OSError):
            raise AttemptFailed(
                Failure.UNREACHABLE, origin.authority, _reason(error, host, through)
            ) from None
        raise
    return stream


async def _secure(stream: Stream, context: ssl.SSLContext, origin: Origin) -> None:
    """TLS with the origin itself; the stream is closed when it fails."""
    try:
        await stream.secure(context, origin.host)
    except BaseException as error:
        stream.close()
        match error:
            case ssl.SSLCertVerificationError():
                pass
            case ssl.SSLEOFError():
                raise NotTls("connection closed in TLS handshake") from None
            case ssl.SSLError() if error.reason in _NOT_TLS:
                raise NotTls(str(error.reason)) from None
            case ssl.SSLError():
                pass
            case OSError():
                raise NotTls("connection closed in TLS handshake") from None
            case _:
                raise
        reason = f"TLS: {_tls_reason(error)}"
        raise AttemptFailed(Failure.UNTRUSTED, origin.authority, reason) from None


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


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        return error.verify_message
    return str(error.reason or error)


def _reason(error: OSError, host: str, through: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"lookup {host}: {error.strerror or 'no such host'}"
    # asyncio puts its own words into strerror.
    return through + (os.strerror(error.errno).lower() if error.errno else str(error))
