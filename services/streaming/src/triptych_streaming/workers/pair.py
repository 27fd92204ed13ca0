"""One forwarded connection: its two sides, as far as they are there."""

from __future__ import annotations

import asyncio
import socket

from triptych_streaming.workers.pump import Sink, Source


class Pair:
    """One forwarded connection.

    :ivar early: what the client sent before the port answered.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.task: asyncio.Task[None] | None = None
        self.socket: socket.socket | None = None
        self.source: Source | None = None
        self.sink: Sink | None = None
        self.early = bytearray()
        self.client_ended = False
        self.port_ended = False

    @property
    def waiting(self) -> int:
        """Bytes that the port has not taken."""
        return len(self.early) + (len(self.sink.pending) if self.sink is not None else 0)

    def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
        if self.source is not None:
            self.source.close()
        if self.sink is not None:
            self.sink.close()
        if self.socket is not None:
            self.socket.close()
