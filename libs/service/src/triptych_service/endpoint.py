"""The Prometheus endpoint: `GET /metrics` on an opt-in address, by asyncio alone.

A scrape is the only request there is, so an HTTP framework would cost more than it gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from triptych_service.errors import EndpointUnusable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_REQUEST_SECONDS = 10.0
_REQUEST_BYTES = 16 << 10


@asynccontextmanager
async def serve(address: str, registry: CollectorRegistry) -> AsyncIterator[str]:
    """Serve until the context ends; gives the address in use, with the port that port 0 became.

    :param address: `host:port`, `[v6]:port` or `unix:/path`.
    :raises EndpointUnusable: it cannot be bound.
    """

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError
        ):
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _answer(head, registry))
                await writer.drain()
        writer.close()

    server = await _listen(address, handle)
    async with server:
        name = server.sockets[0].getsockname()
        yield f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"
    if address.startswith("unix:"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address.removeprefix("unix:"))


async def _listen(address: str, handle: object) -> asyncio.Server:
    try:
        if address.startswith("unix:"):
            # Same-directory rename is not needed here: whoever may read the directory gains only metrics.
            before = os.umask(0o177)
            try:
                return await asyncio.start_unix_server(
                    handle,  # type: ignore[arg-type]
                    address.removeprefix("unix:"),
                    limit=_REQUEST_BYTES,
                )
            finally:
                os.umask(before)
        host, _, port = address.rpartition(":")
        return await asyncio.start_server(
            handle,  # type: ignore[arg-type]
            host.strip("[]") or None,
            int(port),
            limit=_REQUEST_BYTES,
        )
    except (OSError, ValueError) as error:
        raise EndpointUnusable(f"metrics.address {address!r} cannot be served: {error}") from None


async def _answer(head: bytes, registry: CollectorRegistry) -> bytes:
    from prometheus_client.exposition import choose_encoder

    lines = head.decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if path != "/metrics":
        return _response("404 Not Found", "text/plain", b"metrics are at /metrics\n")
    if method not in ("GET", "HEAD"):
        return _response("405 Method Not Allowed", "text/plain", b"GET only\n")
    fields = (line.partition(":") for line in lines[1:])
    accept = next((value.strip() for name, _, value in fields if name.lower() == "accept"), "")
    encode, kind = choose_encoder(accept)
    body = await asyncio.to_thread(encode, registry)
    return _response("200 OK", kind, b"" if method == "HEAD" else body, length=len(body))


def _response(status: str, kind: str, body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
