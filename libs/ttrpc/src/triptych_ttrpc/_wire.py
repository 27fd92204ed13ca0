"""The socket as asyncio sees it: bytes come as they are, and go one message after the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import cast

from triptych_ttrpc.errors import ConnectionClosed, StateError


class Wire(asyncio.Protocol):
    """What waits to be sent is bounded: a message is added when the ones before it are (nearly) gone.

    :param received: called with each piece that comes; must not wait.
    :param lost: called once when the connection is gone, with the reason if there is one.
    """

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[Exception | None], None]) -> None:
        self._received = received
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._turn = asyncio.Lock()
        self._writable = asyncio.Event()
        self._writable.set()

    async def start(self, sock: socket.socket) -> None:
        """Take over a connected unix socket, and begin to read."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    @property
    def congested(self) -> bool:
        """Whether the peer reads too slowly for what it was sent."""
        return not self._writable.is_set()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until this caller may `send` a message, which it then does before anybody else."""
        async with self._turn:
            await self._writable.wait()
            yield

    def send(self, data: bytes) -> None:
        """Send a message, in a `turn`; or without one what is small, and bounded in number.

        :raises ConnectionClosed: the connection is gone.
        :raises StateError: the peer was not started.
        """
        if self._transport is None:
            raise StateError("the peer was not started")
        if self._transport.is_closing():
            raise ConnectionClosed("the connection is closed")
        self._transport.write(data)

    def abort(self) -> None:
        """Close at once; what the kernel has not taken is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def eof_received(self) -> None:
        # A peer that sends no more cannot answer; to wait until it has read all would wait for ever.
        self.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self._lost(exc)
