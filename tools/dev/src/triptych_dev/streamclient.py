"""A client of streaming servers, as kubelet and crictl are one: exec, attach and port-forward.

Over SPDY/3.1, WebSocket, and SPDY tunnelled through WebSocket; works against any CRI runtime's URLs. The
tests, the benchmarks and the demo speak through it.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import triptych_spdy as spdy
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from triptych_dev.errors import StepFailed

REMOTE_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
FORWARD_PROTOCOLS = ("portforward.k8s.io",)
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
_RECEIVED = memoryview(bytearray(1 << 18))
_HEAD_LIMIT = 1 << 16
_REPLY_SECONDS = 30.0

OnData = Callable[[memoryview], None]


class UpgradeRefused(StepFailed):
    """The server answered the upgrade with something else than 101; `status` and `head` tell."""

    def __init__(self, status: int, head: str, body: str) -> None:
        super().__init__(f"upgrade refused: {head.splitlines()[0]}: {body.strip()}")
        self.status = status
        self.head = head


@dataclass(slots=True)
class Result:
    """How a command ended.

    :param status: the error stream as it came: JSON from version 4 on, else text.
    """

    stdout: bytes = b""
    stderr: bytes = b""
    status: bytes = b""
    protocol: str = ""

    @property
    def exit_code(self) -> int:
        """0 for success.

        :raises StepFailed: the command did not run, or the server sent no status.
        """
        return exit_code(self.status)


def exit_code(status: bytes) -> int:
    """The exit code in a version 4 status.

    :raises StepFailed: there is none.
    """
    if not status:
        raise StepFailed("the server sent no status")
    document: dict[str, Any] = json.loads(status)
    if document["status"] == "Success":
        return 0
    if document.get("reason") == "NonZeroExitCode":
        return int(document["details"]["causes"][0]["message"])
    raise StepFailed(str(document.get("message")))


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


@dataclass(slots=True)
class Remote:
    """A running exec or attach session; streams that were not asked for are None."""

    session: SpdySession
    error: Stream
    stdin: Stream | None = None
    stdout: Stream | None = None
    stderr: Stream | None = None
    resize: Stream | None = None

    async def set_size(self, width: int, height: int) -> None:
        """Tell the terminal's size."""
        if self.resize is not None:
            await self.resize.write(json.dumps({"Width": width, "Height": height}).encode())

    async def status(self) -> bytes:
        """Wait for the end; the error stream's content."""
        return await self.error.read_all()


@asynccontextmanager
async def remote_spdy(
    url: str,
    *,
    stdin: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    tty: bool = False,
    protocols: Sequence[str] = REMOTE_PROTOCOLS,
    on_stdout: OnData | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Remote]:
    """Open an exec or attach session with its streams in the order that client-go opens them."""
    async with connect_spdy(url, protocols, tls=tls) as session:
        remote = Remote(session, await session.open({"streamtype": "error"}))
        if stdin:
            remote.stdin = await session.open({"streamtype": "stdin"})
        if stdout:
            remote.stdout = await session.open({"streamtype": "stdout"}, on_stdout)
        if stderr and not tty:
            remote.stderr = await session.open({"streamtype": "stderr"})
        if tty and session.protocol in REMOTE_PROTOCOLS[:2]:
            remote.resize = await session.open({"streamtype": "resize"})
        yield remote


async def exec_spdy(
    url: str,
    stdin: bytes | None = None,
    *,
    tty: bool = False,
    size: tuple[int, int] | None = None,
    protocols: Sequence[str] = REMOTE_PROTOCOLS,
    tls: ssl.SSLContext | None = None,
) -> Result:
    """Run a command to its end."""
    async with remote_spdy(url, stdin=stdin is not None, tty=tty, protocols=protocols, tls=tls) as remote:
        if size is not None:
            await remote.set_size(*size)

        async def feed() -> None:
            if remote.stdin is not None and stdin is not None:
                for start in range(0, len(stdin), 1 << 15):
                    await remote.stdin.write(stdin[start : start + (1 << 15)])
                await remote.stdin.close()

        async def nothing() -> bytes:
            return b""

        _, stdout, stderr, status = await asyncio.gather(
            feed(),
            remote.stdout.read_all() if remote.stdout else nothing(),
            remote.stderr.read_all() if remote.stderr else nothing(),
            remote.status(),
        )
        return Result(stdout, stderr, status, remote.session.protocol)


attach_spdy = remote_spdy
"""An attach session is driven like an interactive exec."""


@dataclass(slots=True)
class Forward:
    """One forwarded connection."""

    data: Stream
    error: Stream


class Forwarder:
    """A port-forward session; see `portforward_spdy`."""

    def __init__(self, session: SpdySession) -> None:
        self.session = session
        self._next = 0

    async def connect(self, port: int, on_data: OnData | None = None) -> Forward:
        """Open one more connection to `port`."""
        headers = {"port": str(port), "requestid": str(self._next)}
        self._next += 1
        error = await self.session.open({"streamtype": "error", **headers})
        await error.close()
        return Forward(await self.session.open({"streamtype": "data", **headers}, on_data), error)


@asynccontextmanager
async def portforward_spdy(url: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Forwarder]:
    """Open a port-forward session."""
    async with connect_spdy(url, FORWARD_PROTOCOLS, tls=tls) as session:
        yield Forwarder(session)


@asynccontextmanager
async def portforward_tunnel(
    url: str, protocol: str = TUNNEL_PROTOCOL, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Forwarder]:
    """Open a port-forward session whose SPDY connection runs inside a WebSocket."""
    # websockets' own client refuses the slash in this subprotocol, so the upgrade is made here.
    lines = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += [
        f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
        f"Sec-WebSocket-Protocol: {protocol}",
    ]
    async with connect_spdy(url, tls=tls, headers=lines, method="GET") as session:
        Tunnel(session)
        yield Forwarder(session)


class Tunnel:
    """Puts a session's bytes into WebSocket messages, and takes them out of those that come."""

    def __init__(self, session: SpdySession) -> None:
        self._websocket = ClientProtocol(parse_uri("ws://tunnel/"), state=State.OPEN, max_size=None)
        self._session = session
        self._send = session.send_bytes
        self._receive = session.receive
        session.send_bytes = self.send
        session.receive = self.receive  # type: ignore[method-assign]

    def send(self, data: bytes) -> None:
        self._websocket.send_binary(data)
        self._flush()

    def receive(self, data: memoryview) -> None:
        self._websocket.receive_data(bytes(data))
        for frame in self._websocket.events_received():
            if isinstance(frame, Frame) and frame.opcode in (Opcode.BINARY, Opcode.CONT):
                self._receive(memoryview(frame.data))
        self._flush()

    def _flush(self) -> None:
        for data in self._websocket.data_to_send():
            self._send(data)


@asynccontextmanager
async def open_websocket(
    url: str, protocol: str = "", *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ClientConnection]:
    """Upgrade a session's URL to WebSocket."""
    address = "ws" + url.removeprefix("http")
    protocols = [Subprotocol(protocol)] if protocol else None
    async with websocket_connect(
        address, subprotocols=protocols, ssl=tls, max_size=None, compression=None, proxy=None
    ) as socket:
        yield socket


@dataclass(slots=True)
class Messages:
    """Channels of a WebSocket session as they fill."""

    channels: dict[int, bytearray] = field(default_factory=dict)

    def take(self, message: bytes | str) -> None:
        if isinstance(message, str):
            channel, data = int(message[0]), b64decode(message[1:])
        else:
            channel, data = message[0], message[1:]
        self.channels.setdefault(channel, bytearray()).extend(data)

    def __getitem__(self, channel: int) -> bytes:
        return bytes(self.channels.get(channel, b""))


def encode_message(channel: int, data: bytes, *, base64: bool) -> bytes | str:
    """A message of a channel."""
    if base64:
        return f"{channel}{b64encode(data).decode()}"
    return bytes((channel,)) + data


async def exec_websocket(
    url: str,
    stdin: bytes | None = None,
    *,
    protocol: str = "v5.channel.k8s.io",
    size: tuple[int, int] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Result:
    """Run a command to its end over WebSocket; the end of stdin is told from version 5 on."""
    base64 = "base64" in protocol
    messages = Messages()
    async with open_websocket(url, protocol, tls=tls) as socket:
        if size is not None:
            text = json.dumps({"Width": size[0], "Height": size[1]}).encode()
            await socket.send(encode_message(4, text, base64=base64))

        async def feed() -> None:
            if stdin is None:
                return
            for start in range(0, len(stdin), 1 << 15):
                await socket.send(encode_message(0, stdin[start : start + (1 << 15)], base64=base64))
            if protocol.startswith("v5"):
                await socket.send(b"\xff\x00")

        async def receive() -> None:
            try:
                async for message in socket:
                    messages.take(message)
            except ConnectionClosed:
                return

        await asyncio.gather(feed(), receive())
        return Result(messages[1], messages[2], messages[3], str(socket.subprotocol or ""))
