"""A client of the streaming daemon over SPDY/3.1, as the kubelet is one: exec, attach, port-forward."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import triptych_spdy as spdy

from triptych_dev.errors import StepFailed

COMMAND_PROTOCOL = "v4.channel.k8s.io"
FORWARD_PROTOCOL = "portforward.k8s.io"
_HEAD_BYTES = 16 << 10


class Stream:
    """One SPDY stream; read until `b""`."""

    def __init__(self, session: Session, stream_id: int) -> None:
        self._session = session
        self._id = stream_id
        self._data: asyncio.Queue[bytes] = asyncio.Queue()
        self._ended = False
        self.replied = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """Take what the peer sent; `b""` is the end."""
        self._data.put_nowait(data)

    async def read(self) -> bytes:
        """The next piece, `b""` once the peer ended the stream."""
        if self._ended:
            return b""
        data = await self._data.get()
        self._ended = not data
        return data

    async def read_all(self) -> bytes:
        """Everything up to the end."""
        pieces = []
        while data := await self.read():
            pieces.append(data)
        return b"".join(pieces)

    async def read_until(self, mark: bytes) -> bytes:
        """What comes up to and with `mark`, and what came in the same piece behind it."""
        collected = b""
        while mark not in collected:
            data = await self.read()
            if not data:
                break
            collected += data
        return collected

    async def write(self, data: bytes) -> None:
        self._session.connection.send_data(self._id, data)
        await self._session.flush()

    async def end(self) -> None:
        """Send nothing more."""
        self._session.connection.end_stream(self._id)
        await self._session.flush()


class Session:
    """An upgraded connection; use `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: str) -> None:
        self.connection = spdy.Connection(spdy.Role.CLIENT)
        self.protocol = protocol
        self._reader, self._writer = reader, writer
        self._streams: dict[int, Stream] = {}

    async def open(self, headers: Mapping[str, str], deadline: float = 30.0) -> Stream:
        """Open a stream and wait until the server takes it."""
        stream_id = self.connection.open_stream(
            [(name.encode(), value.encode()) for name, value in headers.items()]
        )
        stream = self._streams[stream_id] = Stream(self, stream_id)
        await self.flush()
        async with asyncio.timeout(deadline):
            await stream.replied.wait()
        return stream

    async def flush(self) -> None:
        """Send what the protocol engine has to say."""
        self._writer.write(self.connection.data_to_send())
        await self._writer.drain()

    async def receive(self) -> None:
        """Hand out what arrives until the peer closes."""
        try:
            while data := await self._reader.read(1 << 16):
                for event in self.connection.receive_data(data):
                    self._handle(event)
                await self.flush()
        except ConnectionError:
            pass
        finally:
            for stream in self._streams.values():
                stream.replied.set()
                stream.feed(b"")

    def _handle(self, event: spdy.Event) -> None:
        match event:
            case spdy.StreamReplied(stream_id=stream_id):
                self._streams[stream_id].replied.set()
            case spdy.DataReceived(stream_id=stream_id, data=data):
                if data:
                    self._streams[stream_id].feed(bytes(data))
            case spdy.StreamEnded(stream_id=stream_id) | spdy.StreamReset(stream_id=stream_id):
                self._streams[stream_id].replied.set()
                self._streams[stream_id].feed(b"")


@asynccontextmanager
async def connect(url: str, protocol: str, deadline: float = 30.0) -> AsyncIterator[Session]:
    """Upgrade a session's URL to SPDY.

    :raises StepFailed: the server answered anything but 101.
    """
    parts = urlsplit(url)
    async with asyncio.timeout(deadline):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(
                f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                f"X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except BaseException:
            writer.close()
            raise
    status = head.split("\r\n")[0]
    if " 101 " not in status:
        body = (await reader.read(_HEAD_BYTES)).decode(errors="replace")
        writer.close()
        raise StepFailed(f"{parts.path}: {status}: {body.strip()}")
    session = Session(reader, writer, protocol)
    receiver = asyncio.ensure_future(session.receive())
    try:
        yield session
    finally:
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@dataclass(slots=True)
class Command:
    """A running exec or attach session; streams that were not asked for are None."""

    error: Stream
    stdin: Stream | None
    stdout: Stream | None
    stderr: Stream | None
    resize: Stream | None

    async def exit_code(self) -> int:
        """Wait for the end; 0 for success.

        :raises StepFailed: the command did not run.
        """
        text = await self.error.read_all()
        document: dict[str, Any] = json.loads(text) if text else {"status": "Success"}
        if document["status"] == "Success":
            return 0
        if document.get("reason") == "NonZeroExitCode":
            return int(document["details"]["causes"][0]["message"])
        raise StepFailed(f"exec: {document.get('message')}")

    async def resized(self, width: int, height: int) -> None:
        """Tell the size of the terminal."""
        if self.resize is not None:
            await self.resize.write(json.dumps({"Width": width, "Height": height}).encode())


@asynccontextmanager
async def command(
    url: str, *, stdin: bool = False, stdout: bool = True, stderr: bool = True, tty: bool = False
) -> AsyncIterator[Command]:
    """Run the exec or attach session behind a URL."""
    async with connect(url, COMMAND_PROTOCOL) as session:
        error = await session.open({"streamtype": "error"})
        opened: dict[str, Stream | None] = {}
        wanted = {"stdin": stdin, "stdout": stdout, "stderr": stderr and not tty, "resize": tty}
        for name, asked in wanted.items():
            opened[name] = await session.open({"streamtype": name}) if asked else None
        yield Command(error, opened["stdin"], opened["stdout"], opened["stderr"], opened["resize"])


async def execute(url: str, stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
    """Run a command without a terminal to its end: exit code, stdout, stderr."""
    async with command(url, stdin=stdin is not None) as running:
        assert running.stdout is not None and running.stderr is not None
        if running.stdin is not None and stdin is not None:
            await running.stdin.write(stdin)
            await running.stdin.end()
        stdout, stderr = await asyncio.gather(running.stdout.read_all(), running.stderr.read_all())
        return await running.exit_code(), stdout, stderr


async def forward(url: str, port: int, request: bytes) -> bytes:
    """Send bytes to a port of the pod and give all that comes back.

    :raises StepFailed: the port could not be reached.
    """
    async with connect(url, FORWARD_PROTOCOL) as session:
        headers = {"port": str(port), "requestid": "0"}
        error = await session.open({"streamtype": "error", **headers})
        await error.end()
        data = await session.open({"streamtype": "data", **headers})
        await data.write(request)
        answer = await data.read_all()
        await data.end()
        problem = await error.read_all()
        if problem:
            raise StepFailed(f"port-forward: {problem.decode(errors='replace')}")
        return answer


def http_get(host: str, path: str = "/") -> bytes:
    """A request that closes its connection."""
    return f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()


def lines(data: bytes) -> Sequence[str]:
    """Text for people."""
    return data.decode(errors="replace").splitlines()
