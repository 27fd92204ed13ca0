"""Drives one port-forward session: many connections of a client into a pod's network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from triptych_errors import TriptychError

from triptych_streaming.errors import PeerFault, SessionIdle
from triptych_streaming.protocol.channels import Buffer, ClientClosed
from triptych_streaming.protocol.forward import (
    ForwardDropped,
    ForwardEnded,
    ForwardEvent,
    ForwardOpened,
    ForwardReceived,
    PortForward,
)
from triptych_streaming.protocol.status import Outcome
from triptych_streaming.server.wire import Wire
from triptych_streaming.traffic import Traffic
from triptych_streaming.workers.pair import Pair
from triptych_streaming.workers.pump import Sink, Source, sender_of
from triptych_streaming.workers.quota import Quota

_CLOSE_SECONDS = 5.0

Dial = Callable[[int], Awaitable[socket.socket]]


@dataclass(frozen=True, slots=True)
class ForwardLimits:
    """See the settings of these names; bytes and seconds."""

    buffer: int
    backlog: int
    creation: float
    idle: float


class ForwardSession:
    """One session from its handshake to the client's leaving.

    :param quota: of connections of all sessions together.
    """

    def __init__(
        self,
        wire: Wire,
        protocol: PortForward,
        limits: ForwardLimits,
        traffic: Traffic,
        dial: Dial,
        quota: Quota,
    ) -> None:
        self._wire = wire
        self._protocol = protocol
        self._limits = limits
        self._traffic = traffic
        self._dial = dial
        self._quota = quota
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[str] = self._loop.create_future()
        self._pairs: dict[str, Pair] = {}
        self._lagging: set[Pair] = set()
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self, early: bytes) -> Outcome:
        """Serve the client until it leaves.

        :param early: bytes that came with the handshake.
        :raises PeerFault: the client broke the protocol.
        :raises SessionIdle: nothing moved for the idle timeout.
        """
        wire = self._wire
        try:
            async with asyncio.TaskGroup() as self._tasks:
                wire.on_lost, wire.on_writable, wire.on_data = self._lost, self._resume, self._receive
                self._handle(self._protocol.start())
                self._flush()
                if early:
                    self._receive(early)
                if wire.lost:
                    self._lost()
                try:
                    await self._until_gone()
                finally:
                    self._leave("")  # nothing is opened any more, however this ends
                    for name in list(self._pairs):
                        self._close(name)
        except* (SessionIdle, PeerFault) as group:
            raise group.exceptions[0] from None
        finally:
            self._protocol.finish()
            self._flush()
            await wire.close(0 if wire.lost else _CLOSE_SECONDS, self._protocol.confirmed)
        return Outcome()

    async def _until_gone(self) -> None:
        """Wait for the client to leave; watch the idle clock and the age of half-made pairs."""
        limits = self._limits
        while not self._gone.done():
            waits = [limits.creation]
            if limits.idle:
                waits.append(self._wire.active_at + limits.idle - self._loop.time())
                if waits[-1] <= 0:
                    raise SessionIdle(f"nothing moved for {limits.idle:g} s")
            await asyncio.wait((self._gone,), timeout=min(waits))
            self._protocol.expire(self._loop.time())
            self._flush()
        why = self._gone.result()
        if why:
            raise PeerFault(why)

    # From the client

    def _receive(self, data: Buffer) -> None:
        try:
            self._handle(self._protocol.receive(data, self._loop.time()))
        except PeerFault as error:
            self._leave(str(error))
        self._flush()

    def _handle(self, events: Iterable[ForwardEvent]) -> None:
        for event in events:
            if isinstance(event, ForwardReceived):
                self._client_data(event.pair, event.data)
            elif isinstance(event, ForwardOpened):
                self._open(event)
            elif isinstance(event, ForwardEnded):
                self._client_end(event.pair)
            elif isinstance(event, ForwardDropped):
                self._close(event.pair)
            elif isinstance(event, ClientClosed):
                self._leave("")

    def _open(self, event: ForwardOpened) -> None:
        if self._tasks is None or self._gone.done():
            return
        if not self._quota.take():
            self._protocol.fail(
                event.pair, f"port {event.port}: this node has too many forwarded connections"
            )
            return
        pair = self._pairs[event.pair] = Pair(event.port)
        pair.task = self._tasks.create_task(self._connect(event.pair, pair), name="forward")

    async def _connect(self, name: str, pair: Pair) -> None:
        try:
            connected = await self._dial(pair.port)
        except (TriptychError, OSError) as error:
            self._fail(name, str(error))
            return
        finally:
            pair.task = None
        pair.socket = connected
        pair.source = Source(
            connected.fileno(),
            connected.recv_into,
            lambda data: self._port_data(name, data),
            lambda: self._port_end(name, pair),
        )
        pair.sink = Sink(
            connected.fileno(),
            sender_of(connected),
            limit=self._limits.buffer,
            on_full=lambda: self._lags(pair),
            on_room=lambda: self._keeps_up(pair),
            on_closed=lambda: self._half_close(name, pair),
        )
        early, pair.early = pair.early, bytearray()
        self._keeps_up(pair)
        pair.sink.write(early)
        if pair.client_ended:
            pair.sink.end()
        if not self._wire.congested:
            pair.source.resume()

    def _client_data(self, name: str, data: Buffer) -> None:
        pair = self._pairs.get(name)
        if pair is None:
            return
        self._traffic.received += len(data)
        if pair.sink is not None:
            pair.sink.write(data)
            return
        pair.early += data
        if len(pair.early) > self._limits.buffer:
            self._lags(pair)

    def _lags(self, pair: Pair) -> None:
        self._lagging.add(pair)
        self._weigh()

    def _keeps_up(self, pair: Pair) -> None:
        if pair in self._lagging:
            self._lagging.discard(pair)
            self._weigh()

    def _weigh(self) -> None:
        """Read the client, unless too much waits: one connection cannot be held alone."""
        if sum(pair.waiting for pair in self._lagging) > self._limits.backlog:
            self._wire.hold(self)
        else:
            self._wire.release(self)

    def _client_end(self, name: str) -> None:
        pair = self._pairs.get(name)
        if pair is not None:
            pair.client_ended = True
            if pair.sink is not None:
                pair.sink.end()

    def _half_close(self, name: str, pair: Pair) -> None:
        """All that the client sent was passed on, or the port takes no more."""
        assert pair.socket is not None
        with contextlib.suppress(OSError):
            pair.socket.shutdown(socket.SHUT_WR)
        if pair.port_ended:
            self._done(name)

    # From the port

    def _port_data(self, name: str, data: memoryview) -> None:
        self._traffic.sent += len(data)
        self._protocol.output(name, data)
        self._flush()
        if self._wire.congested:
            for pair in self._pairs.values():
                if pair.source is not None:
                    pair.source.pause()

    def _port_end(self, name: str, pair: Pair) -> None:
        assert pair.source is not None and pair.sink is not None
        if pair.source.error is not None:
            reason = os.strerror(pair.source.error.errno or 0)
            self._protocol.break_off(name, f"port {pair.port}: {reason}")
            self._flush()
            self._close(name)
            return
        pair.port_ended = True
        if self._protocol.half_closes and not pair.sink.closed:
            self._protocol.end_output(name)
            self._flush()
        else:
            self._done(name)

    def _resume(self) -> None:
        if not self._wire.congested:
            for pair in list(self._pairs.values()):
                if pair.source is not None:
                    pair.source.resume()

    # Endings

    def _done(self, name: str) -> None:
        self._protocol.forget(name)
        self._flush()
        self._close(name)

    def _fail(self, name: str, message: str) -> None:
        self._protocol.fail(name, message)
        self._flush()
        self._close(name)

    def _close(self, name: str) -> None:
        pair = self._pairs.pop(name, None)
        if pair is not None:
            pair.close()
            self._keeps_up(pair)
            self._quota.give()

    def _flush(self) -> None:
        self._wire.write(self._protocol.take())

    def _lost(self) -> None:
        self._leave("")

    def _leave(self, fault: str) -> None:
        if not self._gone.done():
            self._gone.set_result(fault)
