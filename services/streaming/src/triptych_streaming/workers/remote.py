"""Drives one exec or attach session: a client's protocol on one side, a process on the other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from triptych_errors import TriptychError
from triptych_linux.process import shielded

from triptych_streaming.errors import ClientLagging, PeerFault, SessionIdle, StreamsMissing
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
from triptych_streaming.workers.backend import Backend
from triptych_streaming.workers.intake import Intake
from triptych_streaming.workers.lag import LagClock
from triptych_streaming.workers.outputs import Outputs

_CLOSE_SECONDS = 5.0
_KILLED_SECONDS = 30.0
_CLIENT_GONE = "the client is gone"
_LAG_LOOKS = 4
"""Times that a client which lags is looked at while the clock runs."""


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """See the settings of these names; bytes and seconds."""

    buffer: int
    creation: float
    idle: float
    linger: float
    hangup: float
    lag: float


class RemoteSession:
    """One session from its handshake to its last byte.

    :ivar left: why the client was gone before it had everything; empty when it was not.
    """

    def __init__(self, wire: Wire, protocol: RemoteCommand, limits: RemoteLimits, traffic: Traffic) -> None:
        self._wire = wire
        self._protocol = protocol
        self._limits = limits
        self._traffic = traffic
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[str] = loop.create_future()
        self.left = ""
        self._writable: asyncio.Future[None] = loop.create_future()
        self._lag = LagClock(wire)
        self._outputs = Outputs(self._output, self._output_ended)
        self._intake = Intake(wire, limits.buffer)
        self._backend: Backend | None = None
        self._size: Resized | None = None

    async def run(self, backend: Backend, early: bytes) -> Outcome:
        """Serve the client until the process has ended or the client is gone.

        :param backend: a process that is not prepared yet; what fails of it is told to the client and is the
            outcome.
        :param early: bytes that came with the handshake.
        :raises StreamsMissing: the client did not open its streams.
        :raises PeerFault: the client left or broke the protocol before the process was started.
        :raises SessionIdle: nothing moved for the idle timeout.
        :raises ClientLagging: the client did not read what others share with it.
        """
        try:
            self._listen(early)
            failure = await self._begin(backend)
            if failure:
                return await self._finish(Outcome(failure=failure))
            return await self._serve(backend)
        finally:
            self._stop_pumps()
            await shielded(backend.close(), _KILLED_SECONDS)

    def _listen(self, early: bytes) -> None:
        wire = self._wire
        wire.on_lost, wire.on_writable, wire.on_data = self._lost, self._resume, self._receive
        self._handle(self._protocol.start())
        self._flush()
        if early:
            self._receive(early)
        if wire.lost:
            self._lost()

    async def _begin(self, backend: Backend) -> str:
        """Start the process when the client has opened its streams; why it did not start, if so."""
        failure = ""
        try:
            await backend.prepare()
        except TriptychError as error:
            failure = str(error)
        await self._streams()
        if failure:
            return failure
        self._outputs.add(backend, complete=False)
        self._resume()
        try:
            await backend.start()
        except TriptychError as error:
            return str(error)
        self._started(backend)
        return ""

    def _started(self, backend: Backend) -> None:
        self._backend = backend
        self._outputs.add(backend, complete=True)
        if self._size is not None:
            backend.resize(self._size.width, self._size.height)
        self._intake.open(backend.input)
        self._resume()

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
        ended = asyncio.ensure_future(backend.wait())
        try:
            await self._until(ended, backend)
            if ended.done():
                await self._rest(backend)
        except (SessionIdle, ClientLagging, asyncio.CancelledError) as error:
            runs = not ended.done()
            ended.cancel()
            why = str(error) if isinstance(error, TriptychError) else "the streaming daemon stops"
            await shielded(self._cut_off(backend if runs else None, why), _KILLED_SECONDS)
            raise
        if self._gone.done():
            self.left = self._gone.result()
        if not ended.done():
            ended.cancel()
            self._stop_pumps()
            self._wire.abort()
            grace = self._limits.hangup
            return await shielded(backend.hang_up(grace), grace + _KILLED_SECONDS)
        return await self._finish(ended.result())

    async def _until(self, awaited: asyncio.Future[Any], backend: Backend) -> None:
        """Wait until something has come or the client is gone, and watch the clocks."""
        while not (awaited.done() or self._gone.done()):
            left = self._left(backend)
            await asyncio.wait((awaited, self._gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)

    def _left(self, backend: Backend) -> float | None:
        """Seconds until the first clock can run out, None when there is none.

        :raises SessionIdle, ClientLagging: one has run out.
        """
        limits, now, clocks = self._limits, asyncio.get_running_loop().time(), []
        if limits.idle:
            clocks.append(self._wire.active_at + limits.idle - now)
            if clocks[-1] <= 0:
                raise SessionIdle(f"nothing moved for {limits.idle:g} s")
        if limits.lag and backend.shared:
            lagged = self._lag.seconds(now)
            if lagged >= limits.lag:
                raise ClientLagging(f"the client did not read for {limits.lag:g} s: others wait for it")
            clocks.append(min(limits.lag - lagged, limits.lag / _LAG_LOOKS))
        return min(clocks, default=None)

    async def _cut_off(self, running: Backend | None, why: str) -> None:
        self._stop_pumps()
        self._protocol.finish(Outcome(failure=why))
        self._flush()
        if running is not None:
            await running.hang_up(0)
        await self._wire.close(_CLOSE_SECONDS, self._protocol.confirmed)

    async def _rest(self, backend: Backend) -> None:
        """Pass on all that the process wrote before it ended.

        Its own output is there to be read now. More can only come from children that it left behind with the
        output open; they get a while. A client that is slow to read gets as long as it needs.
        """
        outputs = self._outputs
        if outputs.ended:
            return
        done = (outputs.all_read, self._gone)
        await asyncio.wait(done, timeout=self._limits.linger, return_when=asyncio.FIRST_COMPLETED)
        while not (self._gone.done() or outputs.ended):
            outputs.drain()
            if not outputs.ended:
                self._writable = asyncio.get_running_loop().create_future()
                await self._until(self._writable, backend)

    async def _finish(self, outcome: Outcome) -> Outcome:
        self._stop_pumps()
        self._protocol.finish(outcome)
        self._flush()
        # The process is gone, and its last output may lie in the kernel still: a client in no hurry gets it.
        patience = self._limits.idle or math.inf
        await self._wire.close(_CLOSE_SECONDS, self._protocol.confirmed, patience=patience)
        return outcome

    # From the process to the client

    def _output(self, channel: Channel, data: memoryview) -> None:
        self._traffic.sent += len(data)
        self._protocol.output(channel, data)
        self._wire.write(self._protocol.take())
        if self._wire.congested:
            self._pause()

    def _output_ended(self, channel: Channel) -> None:
        self._protocol.end_output(channel)
        self._flush()

    def _pause(self) -> None:
        self._outputs.pause()
        self._lag.start(asyncio.get_running_loop().time())

    def _resume(self) -> None:
        if self._wire.congested:
            self._pause()
            return
        self._lag.stop()
        self._outputs.resume()
        if not self._writable.done():
            self._writable.set_result(None)

    def _flush(self) -> None:
        self._wire.write(self._protocol.take())

    def _stop_pumps(self) -> None:
        self._outputs.close()
        self._intake.close()

    # From the client to the process

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
                self._traffic.received += len(event.data)
                self._intake.write(event.data)
            elif isinstance(event, StdinEnded):
                self._intake.end()
            elif isinstance(event, Resized):
                self._size = event
                if self._backend is not None:
                    self._backend.resize(event.width, event.height)
            elif isinstance(event, OutputRefused):
                self._outputs.refuse(event.channel)
            elif isinstance(event, SessionReady):
                if not self._ready.done():
                    self._ready.set_result(None)
            elif isinstance(event, ClientClosed):
                self._lose("the client closed the session")

    def _lost(self) -> None:
        self._lose(_CLIENT_GONE)

    def _lose(self, why: str) -> None:
        if not self._gone.done():
            self._gone.set_result(why)
