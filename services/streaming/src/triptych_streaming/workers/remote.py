"""Drives one exec or attach session: a client's protocol on one side, a process on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from triptych_errors import TriptychError
from triptych_linux.process import shielded

from triptych_streaming.errors import PeerFault, SessionIdle, StreamsMissing
from triptych_streaming.protocol.channels import (
    Buffer,
    Channel,
    ClientClosed,
    OutputRefused,
    RemoteEvent,
    Resized,
    SessionReady,
    StdinEnded,
    StdinReceived,
)
from triptych_streaming.protocol.remotecommand import RemoteCommand
from triptych_streaming.protocol.status import Outcome
from triptych_streaming.server.wire import Wire
from triptych_streaming.traffic import Traffic
from triptych_streaming.workers.backend import Backend, Input, Output
from triptych_streaming.workers.pump import Sink, Source

_CLOSE_SECONDS = 5.0
_KILLED_SECONDS = 30.0
_CLIENT_GONE = "the client is gone"


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """See the settings of these names; bytes and seconds."""

    buffer: int
    creation: float
    idle: float
    linger: float
    hangup: float


class RemoteSession:
    """One session from its handshake to its last byte."""

    def __init__(self, wire: Wire, protocol: RemoteCommand, limits: RemoteLimits, traffic: Traffic) -> None:
        self._wire = wire
        self._protocol = protocol
        self._limits = limits
        self._traffic = traffic
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[str] = loop.create_future()
        self._all_read: asyncio.Future[None] = loop.create_future()
        self._writable = asyncio.Event()
        self._backend: Backend | None = None
        self._sources: dict[Channel, Source] = {}
        self._sink: Sink | None = None
        self._early = bytearray()
        self._early_end = False
        self._refused: set[Channel] = set()
        self._size: Resized | None = None

    async def run(self, start: Callable[[], Awaitable[Backend]], early: bytes) -> Outcome:
        """Serve the client until the process has ended or the client is gone.

        :param start: starts the process; its errors are told to the client and are the outcome.
        :param early: bytes that came with the handshake.
        :raises StreamsMissing: the client did not open its streams.
        :raises PeerFault: the client left or broke the protocol before the process was started.
        :raises SessionIdle: nothing moved for the idle timeout.
        """
        wire = self._wire
        wire.on_lost, wire.on_writable, wire.on_data = self._lost, self._resume, self._receive
        self._handle(self._protocol.start())
        self._flush()
        if early:
            self._receive(early)
        if wire.lost:
            self._lost()
        await self._streams()
        try:
            self._backend = await start()
        except TriptychError as error:
            return await self._finish(Outcome(failure=str(error)))
        try:
            return await self._serve(self._backend)
        finally:
            self._stop_pumps()
            self._backend.close()

    async def _streams(self) -> None:
        await asyncio.wait(
            (self._ready, self._gone),
            timeout=self._limits.creation,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._ready.done():
            return
        if self._gone.done():
            raise PeerFault(self._gone.result())
        raise StreamsMissing(f"the client did not open its streams within {self._limits.creation:g} s")

    async def _serve(self, backend: Backend) -> Outcome:
        self._start_pumps(backend)
        ended = asyncio.ensure_future(backend.wait())
        try:
            await self._until(ended)
        except (SessionIdle, asyncio.CancelledError) as error:
            ended.cancel()
            why = str(error) if isinstance(error, SessionIdle) else "the streaming daemon stops"
            await shielded(self._cut_off(backend, why), _KILLED_SECONDS)
            raise
        if not ended.done():
            ended.cancel()
            self._stop_pumps()
            self._wire.abort()
            grace = self._limits.hangup
            return await shielded(backend.hang_up(grace), grace + _KILLED_SECONDS)
        outcome = ended.result()
        await self._rest()
        return await self._finish(outcome)

    async def _until(self, ended: asyncio.Future[Outcome]) -> None:
        """Wait until the process or the client is gone, and watch the idle clock."""
        now = asyncio.get_running_loop().time
        idle = self._limits.idle
        while not (ended.done() or self._gone.done()):
            left = self._wire.active_at + idle - now() if idle else None
            if left is not None and left <= 0:
                raise SessionIdle(f"nothing moved for {idle:g} s")
            await asyncio.wait((ended, self._gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def _cut_off(self, backend: Backend, why: str) -> None:
        self._stop_pumps()
        self._protocol.finish(Outcome(failure=why))
        self._flush()
        await backend.hang_up(0)
        await self._wire.close(_CLOSE_SECONDS, self._protocol.confirmed)

    async def _rest(self) -> None:
        """Pass on all that the process wrote before it ended.

        Its own output is there to be read now. More can only come from children that it left behind with the
        output open; they get a while. A client that is slow to read gets as long as it needs.
        """
        if all(source.ended for source in self._sources.values()):
            return
        done = (self._all_read, self._gone)
        await asyncio.wait(done, timeout=self._limits.linger, return_when=asyncio.FIRST_COMPLETED)
        while not (self._gone.done() or all(each.ended for each in self._sources.values())):
            for source in self._sources.values():
                if not source.ended and source.drain():
                    source.close()
            if any(not each.ended for each in self._sources.values()):
                self._writable.clear()
                await self._writable.wait()

    async def _finish(self, outcome: Outcome) -> Outcome:
        self._stop_pumps()
        self._protocol.finish(outcome)
        self._flush()
        await self._wire.close(_CLOSE_SECONDS, self._protocol.confirmed)
        return outcome

    # From the process to the client

    def _start_pumps(self, backend: Backend) -> None:
        for channel, output in backend.outputs.items():
            self._sources[channel] = self._source(channel, output)
        target = backend.input
        if target is not None:
            self._sink = self._make_sink(target)
            self._sink.write(self._early)
            if self._early_end:
                self._sink.end()
        self._early = bytearray()
        self._wire.release(self)
        if self._size is not None:
            backend.resize(self._size.width, self._size.height)
        for channel in self._refused:
            self._refuse(channel)
        self._resume()

    def _source(self, channel: Channel, output: Output) -> Source:
        split = output.split
        if split is None:
            return Source(
                output.fd,
                output.read,
                lambda data: self._output(channel, data),
                lambda: self._output_ended(channel),
            )
        return Source(
            output.fd,
            output.read,
            lambda packet: self._output(*split(packet)),
            lambda: self._output_ended(Channel.STDOUT, Channel.STDERR),
        )

    def _output(self, channel: Channel, data: memoryview) -> None:
        self._traffic.sent += len(data)
        self._protocol.output(channel, data)
        self._wire.write(self._protocol.take())
        if self._wire.congested:
            for source in self._sources.values():
                source.pause()

    def _output_ended(self, *channels: Channel) -> None:
        for channel in channels:
            self._protocol.end_output(channel)
        self._flush()
        if not self._all_read.done() and all(source.ended for source in self._sources.values()):
            self._all_read.set_result(None)

    def _resume(self) -> None:
        if not self._wire.congested:
            for source in self._sources.values():
                source.resume()
            self._writable.set()

    def _refuse(self, channel: Channel) -> None:
        """The client wants no more of this output; its writer shall notice."""
        source = self._sources.get(channel)
        if source is not None and self._backend is not None and self._backend.separate_outputs:
            source.close()
            self._backend.close_output(channel)

    def _flush(self) -> None:
        self._wire.write(self._protocol.take())

    def _stop_pumps(self) -> None:
        for source in self._sources.values():
            source.close()
        if self._sink is not None:
            self._sink.close()

    # From the client to the process

    def _make_sink(self, target: Input) -> Sink:
        wire = self._wire
        return Sink(
            target.fd,
            target.write,
            limit=self._limits.buffer,
            on_full=lambda: wire.hold(target),
            on_room=lambda: wire.release(target),
            on_closed=target.end,
        )

    def _receive(self, data: Buffer) -> None:
        try:
            self._handle(self._protocol.receive(data))
        except PeerFault as error:
            self._flush()
            self._lose(str(error))
        else:
            self._flush()

    def _handle(self, events: Iterable[RemoteEvent]) -> None:
        for event in events:
            if isinstance(event, StdinReceived):
                self._stdin(event.data)
            elif isinstance(event, StdinEnded):
                self._early_end = True
                if self._sink is not None:
                    self._sink.end()
            elif isinstance(event, Resized):
                self._size = event
                if self._backend is not None:
                    self._backend.resize(event.width, event.height)
            elif isinstance(event, OutputRefused):
                self._refused.add(event.channel)
                self._refuse(event.channel)
            elif isinstance(event, SessionReady):
                if not self._ready.done():
                    self._ready.set_result(None)
            elif isinstance(event, ClientClosed):
                self._lose("the client closed the session")

    def _stdin(self, data: Buffer) -> None:
        self._traffic.received += len(data)
        if self._sink is not None:
            self._sink.write(data)
            return
        self._early += data
        if len(self._early) > self._limits.buffer:
            self._wire.hold(self)

    def _lost(self) -> None:
        self._lose(_CLIENT_GONE)

    def _lose(self, why: str) -> None:
        self._writable.set()
        if not self._gone.done():
            self._gone.set_result(why)
