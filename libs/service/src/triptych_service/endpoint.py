"""The Prometheus endpoint: `GET /metrics` on an opt-in address, by asyncio alone.

A scrape is the only request there is, so an HTTP framework would cost more than it gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from triptych_service.errors import EndpointTaken, EndpointUnusable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

_REQUEST_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_REQUEST_BYTES = 16 << 10
_LONGEST_PATH = 107


@asynccontextmanager
async def serve(address: str, registry: CollectorRegistry) -> AsyncIterator[Callable[[], None]]:
    """Serve until what this gives is called, or to the end of the context.

    An address that another process holds is waited for: it may be a predecessor that still ends, or another
    instance with the same configuration, and neither is a reason not to work.

    :param address: `host:port`, `[v6]:port` or `unix:/path`.
    :raises EndpointUnusable: it is no address, or one that this machine does not have.
    """
    endpoint = _Endpoint(address, registry)
    waiting: asyncio.Task[None] | None = None
    try:
        await endpoint.start()
    except EndpointTaken as error:
        log.warning("metrics are not served yet: %s", error)
        waiting = asyncio.create_task(endpoint.keep_starting())
    try:
        yield endpoint.close
    finally:
        endpoint.close()
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait([waiting])


class _Endpoint:
    """One address and what is served on it."""

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        self._address = address
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._bound: tuple[int, int] | None = None
        self._closed = False

    async def keep_starting(self) -> None:
        """Try until the address is served or given up."""
        while self._server is None and not self._closed:
            await asyncio.sleep(_RETRY_SECONDS)
            with contextlib.suppress(EndpointUnusable):
                await self.start()

    async def start(self) -> None:
        """:raises EndpointUnusable: the address cannot be served; `EndpointTaken` when it is in use."""
        self._server = await self._listen()
        if self._closed:  # meanwhile
            self.close()
            return
        name = self._server.sockets[0].getsockname()
        shown = f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"
        log.info("serving metrics", extra={"address": shown})

    def close(self) -> None:
        """Give the address up, at once: a successor may take it when this returns."""
        self._closed = True
        server, self._server = self._server, None
        if server is None:
            return
        # The path first: behind a server that is closed it would be taken for one that was left.
        name = server.sockets[0].getsockname()
        if isinstance(name, str):
            with contextlib.suppress(FileNotFoundError):
                if _inode(name) == self._bound:
                    os.unlink(name)
        server.close()

    async def _listen(self) -> asyncio.Server:
        try:
            place = parse(self._address)
            if not isinstance(place, str):
                return await asyncio.start_server(self._handle, *place, limit=_REQUEST_BYTES)
            bound = _bind(place)
            self._bound = _inode(place)
            return await asyncio.start_unix_server(self._handle, sock=bound, limit=_REQUEST_BYTES)
        except OSError as error:
            kind = EndpointTaken if error.errno == errno.EADDRINUSE else EndpointUnusable
            raise kind(f"metrics.address {self._address!r} cannot be served: {error}") from None
        except ValueError as error:
            raise EndpointUnusable(f"metrics.address {self._address!r} cannot be served: {error}") from None

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError
        ):
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _answer(head, self._registry))
                await writer.drain()
        writer.close()


def parse(address: str) -> str | tuple[str | None, int]:
    """The path of a socket, or host (None for all) and port.

    :raises ValueError: saying what was expected.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not 0 < len(os.fsencode(path)) <= _LONGEST_PATH:
            raise ValueError(f"expected unix: and a path of {_LONGEST_PATH} bytes at most, got {address!r}")
        return path
    host, colon, port = address.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
        raise ValueError(f"expected host:port, [address]:port or unix:/path, got {address!r}")
    return host.strip("[]") or None, int(port)


def _bind(path: str) -> socket.socket:
    """A socket that listens on a path, closed to others from its first moment.

    :raises OSError: EADDRINUSE while another process serves the path, or is about to.
    """
    # Between the look at the path and the new socket on it nobody else may find it unserved.
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
        if _left_behind(path):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            made.bind(path)
        finally:
            os.umask(before)
        made.listen()
    except BaseException:
        made.close()
        raise
    finally:
        os.close(directory)
    return made


def _left_behind(path: str) -> bool:
    """Whether a socket lies at the path that nobody listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED and stat.S_ISSOCK(os.lstat(path).st_mode)


def _inode(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


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
