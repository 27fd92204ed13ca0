"""One connection: a request out, a response head in; HTTP/1.1 framing by h11."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import h11

from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http.proxies import Proxy
from triptych_image.registry.http.stream import Stream

_MAX_HEAD: Final = 64 << 10
_HEAD_READ: Final = 8 << 10

Headers = list[tuple[str, str]]


class ClosedEarly(Exception):
    """A kept connection was closed before it answered; the request may be sent again over another."""


@dataclass(slots=True)
class Head:
    """Status and headers; names are lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool

    def get(self, name: bytes) -> str:
        """The first header of that name, or ""."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    def all(self, name: bytes) -> list[str]:
        """All headers of that name."""
        return [value.decode("latin-1") for key, value in self.headers if key == name]


class Connection:
    """Carries one exchange after another.

    :param host: for errors.
    :param forwarder: the proxy at the other end, which is told the whole URL.
    """

    __slots__ = ("forwarder", "host", "idle_since", "protocol", "reused", "stream")

    def __init__(self, stream: Stream, host: str, forwarder: Proxy | None = None) -> None:
        self.stream = stream
        self.host = host
        self.forwarder = forwarder
        self.reused = False
        self.idle_since = 0.0
        self.protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: AsyncIterator[bytes] | None = None,
        stall_seconds: float | None = None,
    ) -> None:
        """Send a request.

        :param stall_seconds: how long a piece of the body may take.

        :raises ClosedEarly: when a kept connection turns out to be closed and there is no body.
        :raises AttemptFailed: BROKEN.
        """
        self.protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        try:
            head = self.protocol.send(h11.Request(method=method, target=target, headers=headers))
        except h11.LocalProtocolError as error:
            raise AttemptFailed(Failure.PROTOCOL, self.host, f"request cannot be sent: {error}") from None
        try:
            await self.stream.send_all(head or b"")
            if body is not None:
                await self._send_body(body, stall_seconds)
            await self.stream.send_all(self.protocol.send(h11.EndOfMessage()) or b"")
        except OSError as error:
            if body is None and self.reused:
                raise ClosedEarly from None
            # A server that refuses an upload answers and closes; its answer may still be there to read.
            if body is None or not isinstance(error, ConnectionError):
                raise broken(self.host, error) from None

    async def _send_body(self, body: AsyncIterator[bytes], stall_seconds: float | None) -> None:
        async for chunk in body:
            for piece in self.protocol.send_with_data_passthrough(h11.Data(data=chunk)) or []:
                async with asyncio.timeout(stall_seconds):
                    await self.stream.send_all(piece)

    async def receive_head(self) -> Head:
        """Read the response's head, skipping 1xx ones.

        :raises ClosedEarly: when a kept connection was closed.
        :raises AttemptFailed: BROKEN or PROTOCOL.
        """
        buffer = bytearray(_HEAD_READ)
        view = memoryview(buffer)
        started = False
        try:
            while True:
                event = self.protocol.next_event()
                if isinstance(event, h11.Response):
                    return _head(event)
                if event is h11.NEED_DATA:
                    count = await self.stream.read_into(view)
                    if not count and not started:
                        if self.reused:
                            raise ClosedEarly
                        raise AttemptFailed(Failure.BROKEN, self.host, "connection closed without an answer")
                    started = True
                    self.protocol.receive_data(bytes(view[:count]))
                elif not isinstance(event, h11.InformationalResponse):
                    raise AttemptFailed(Failure.PROTOCOL, self.host, "no HTTP response")
        except h11.RemoteProtocolError as error:
            raise AttemptFailed(Failure.PROTOCOL, self.host, f"no HTTP response: {error}") from None
        except OSError as error:
            if self.reused and not started:
                raise ClosedEarly from None
            raise broken(self.host, error) from None

    def close(self) -> None:
        self.stream.close()


def _head(event: h11.Response) -> Head:
    headers = [(bytes(name), bytes(value)) for name, value in event.headers]
    tokens = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    keep = event.http_version >= b"1.1" and b"close" not in tokens
    return Head(event.status_code, headers, keep)


def broken(host: str, error: OSError) -> AttemptFailed:
    """A connection that failed underway."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return AttemptFailed(Failure.SLOW, host, "connection timed out")
    return AttemptFailed(Failure.BROKEN, host, f"connection broke: {error.strerror or error}")
