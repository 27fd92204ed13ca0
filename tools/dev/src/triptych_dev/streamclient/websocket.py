"""Exec and attach over WebSocket."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from triptych_dev.streamclient.remote import Result


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
