"""SPDY/3.1 from the client's side: the upgrade of a session's URL, and streams on it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import triptych_spdy as spdy

from triptych_dev.errors import StepFailed

REMOTE_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_RECEIVED = memoryview(bytearray(1 << 18))
_REPLY_SECONDS = 30.0

OnData = Callable[[memoryview], None]


class UpgradeRefused(StepFailed):
    """The server answered the upgrade with something else than 101; `status` and `head` tell."""

    def __init__(self, status: int, head: str, body: str) -> None:
        super().__init__(f"upgrade refused: {head.splitlines()[0]}: {body.strip()}")
        self.status = status
        self.head = head


class Stream:
    """One SPDY stream.

    :ivar on_data: takes what arrives instead of `read`; the view is valid during the call only.
    :ivar reset: the status with which the peer reset it, or None.
    """

    def __init__(self, session: SpdySession, stream_id: int, on_data: OnData | None) -> None:
        self.session = session
        self.id = stream_id
        self.on_data = on_data
        self.reset: int | None = None
        self.ended = asyncio.Event()
        self.replied: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._more = asyncio.Event()

    def take(self, data: memoryview) -> None:
        if self.on_data is not None:
            self.on_data(data)
        else:
            self._buffer += data
            self._more.set()

    def end(self) -> None:
        self.ended.set()
        self._more.set()
        if not self.replied.done():
            self.replied.set_result(False)

    async def read(self) -> bytes:
        """What has come since the last read; b"" at the end."""
        while not self._buffer and not self.ended.is_set():
            self._more.clear()
            await self._more.wait()
        data, self._buffer = bytes(self._buffer), bytearray()
        return data

    async def read_all(self) -> bytes:
        """Everything up to the end."""
        await self.ended.wait()
        return await self.read()

    async def read_until(self, mark: bytes) -> bytes:
        """What comes up to `mark`; what came behind it stays to be read.

        :raises StepFailed: the stream ended without it.
        """
        while mark not in self._buffer:
            if self.ended.is_set():
                raise StepFailed(f"{mark!r} did not come; instead {bytes(self._buffer)!r}")
            self._more.clear()
            await self._more.wait()
        end = self._buffer.index(mark) + len(mark)
        data = bytes(self._buffer[:end])
        del self._buffer[:end]
        return data

    async def write(self, data: bytes) -> None:
        """Send, waiting while the server does not read."""
        await self.session.send(self.id, data)

    async def close(self) -> None:
        """Send nothing more."""
        self.session.connection.end_stream(self.id)
        self.session.flush()


class SpdySession(asyncio.BufferedProtocol):
    """An upgraded connection with its streams; see `connect_spdy`."""

    def __init__(self, request: bytes) -> None:
        self.connection = spdy.Connection(spdy.Role.CLIENT)
        self.streams: dict[int, Stream] = {}
        self.protocol = ""
        self.upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self._request = request
        self._head = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()
        self.transport: asyncio.Transport | None = None
        self.send_bytes: Callable[[bytes], object] = self._send_transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        if self.upgraded.done():
            self.receive(_RECEIVED[:nbytes])
            return
        self._head += _RECEIVED[:nbytes]
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, rest = self._head[:end].decode("latin-1"), bytes(self._head[end + 4 :])
        status = int(head.split(" ", 2)[1])
        if status != 101:
            self.upgraded.set_exception(UpgradeRefused(status, head, rest.decode(errors="replace")))
            return
        for line in head.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            if name.strip().lower() == "x-stream-protocol-version":
                self.protocol = value.strip()
        self.upgraded.set_result(None)
        if rest:
            self.receive(memoryview(rest))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.upgraded.done():
            self.upgraded.set_exception(
                StepFailed(f"the server closed the connection: {exc or 'no answer'}")
            )
        self._writable.set()
        self.closed.set()
        for stream in self.streams.values():
            stream.end()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def receive(self, data: memoryview) -> None:
        """Hand out what arrived."""
        for event in self.connection.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", 0))
            if stream is None:
                continue
            if isinstance(event, spdy.DataReceived):
                stream.take(event.data)
            elif isinstance(event, spdy.StreamReplied):
                if not stream.replied.done():
                    stream.replied.set_result(True)
            elif isinstance(event, spdy.StreamReset):
                stream.reset = event.status
                stream.end()
            elif isinstance(event, spdy.StreamEnded):
                stream.end()
        self.flush()

    def flush(self) -> None:
        data = self.connection.data_to_send()
        if data:
            self.send_bytes(data)

    def _send_transport(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    async def send(self, stream_id: int, data: bytes) -> None:
        await self._writable.wait()
        if self.connection.can_send(stream_id):
            self.connection.send_data(stream_id, data)
            self.flush()

    async def open(
        self, headers: Mapping[str, str], on_data: OnData | None = None, *, wait: bool = True
    ) -> Stream:
        """Open a stream and, by default, wait for its reply.

        :raises StepFailed: it was refused.
        """
        stream_id = self.connection.open_stream(
            [(name.encode(), value.encode()) for name, value in headers.items()]
        )
        stream = self.streams[stream_id] = Stream(self, stream_id, on_data)
        self.flush()
        if wait:
            async with asyncio.timeout(_REPLY_SECONDS):
                accepted = await stream.replied
            if not accepted:
                raise StepFailed(f"stream {dict(headers)} was refused: {stream.reset}")
        return stream


@asynccontextmanager
async def connect_spdy(
    url: str,
    protocols: Sequence[str] = REMOTE_PROTOCOLS,
    *,
    tls: ssl.SSLContext | None = None,
    headers: Sequence[str] | None = None,
    method: str = "POST",
) -> AsyncIterator[SpdySession]:
    """Upgrade a session's URL to SPDY.

    :param headers: header lines instead of those of the upgrade.
    :raises UpgradeRefused: another answer than 101.
    """
    parts = urlsplit(url)
    lines = list(headers) if headers is not None else ["Connection: Upgrade", "Upgrade: SPDY/3.1"]
    if headers is None:
        lines += [f"X-Stream-Protocol-Version: {each}" for each in protocols]
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    head = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}", *lines]
    request = "\r\n".join(head).encode() + b"\r\n\r\n"
    loop = asyncio.get_running_loop()
    transport, session = await loop.create_connection(
        lambda: SpdySession(request), parts.hostname or "", parts.port or 80, ssl=tls
    )
    try:
        await session.upgraded
        yield session
    finally:
        transport.close()
