"""Port-forward: over SPDY/3.1, and over SPDY inside a WebSocket."""

from __future__ import annotations

import os
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from triptych_dev.streamclient.spdy import OnData, SpdySession, Stream, connect_spdy

FORWARD_PROTOCOLS = ("portforward.k8s.io",)
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"


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
