"""A session's standard input: kept until the process runs, then passed on as it reads."""

from __future__ import annotations

from triptych_streaming.protocol.channels import Buffer
from triptych_streaming.server.wire import Wire
from triptych_streaming.workers.backend import Input
from triptych_streaming.workers.pump import Sink


class Intake:
    """What the client types or pipes in. Above `limit` bytes waiting, the client is not read any more."""

    def __init__(self, wire: Wire, limit: int) -> None:
        self._wire = wire
        self._limit = limit
        self._early = bytearray()
        self._ended = False
        self._sink: Sink | None = None

    def write(self, data: Buffer) -> None:
        """Pass on, or keep for the process."""
        if self._sink is not None:
            self._sink.write(data)
            return
        self._early += data
        if len(self._early) > self._limit:
            self._wire.hold(self)

    def end(self) -> None:
        """The client sends no more."""
        self._ended = True
        if self._sink is not None:
            self._sink.end()

    def open(self, target: Input | None) -> None:
        """The process runs, and reads `target`; None when it has no input."""
        if target is not None:
            self._sink = Sink(
                target.fd,
                target.write,
                limit=self._limit,
                on_full=lambda: self._wire.hold(self),
                on_room=lambda: self._wire.release(self),
                on_closed=target.end,
            )
            self._wire.release(self)
            self._sink.write(self._early)
            if self._ended:
                self._sink.end()
        self._early = bytearray()
        if target is None:
            self._wire.release(self)

    def close(self) -> None:
        """Drop what waits."""
        if self._sink is not None:
            self._sink.close()
