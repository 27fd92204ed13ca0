"""One client connection as the sessions see it, plain or TLS."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import termios
from collections.abc import Callable

from triptych_streaming.protocol.channels import Buffer

_LOW_SHARE = 4
_FLOOD = 16
"""Times the write limit that answers nobody asked for (pongs, resets) may pile up before the client is
not read any more."""

_PROBE_SECONDS = 10.0

# What arrives is used up before the call returns, so all connections of the event loop share one buffer.
_RECEIVED = memoryview(bytearray(1 << 16))

_EARLY = "early"


def _nothing() -> None:
    """Nobody wants to be told."""


class Wire(asyncio.BufferedProtocol):
    """Bytes in by a callback, bytes out with back-pressure.

    :ivar on_data: gets what arrives, as a view that is valid during the call only.
    :ivar on_lost: called once when the client is gone, in whatever way.
    :ivar on_writable: called when `congested` turns false.
    :ivar probe: gives bytes that mean nothing to the client. They are sent now and then while it is not
        read: that is how it shows that it is gone, and how it sees that this side is not.
    :ivar congested: more than the limit waits for the client: stop producing.
    :ivar active_at: loop time of the last byte in either direction.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._direct = -1
        self._holds: set[object] = set()
        self._early = bytearray()
        self.on_data: Callable[[memoryview], None] = self._keep
        self.on_lost: Callable[[], None] = _nothing
        self.on_writable: Callable[[], None] = _nothing
        self.probe: Callable[[], list[Buffer]] = list
        self._probing: asyncio.TimerHandle | None = None
        self.congested = False
        self.lost = False
        self.active_at = self._loop.time()
        self._gone: asyncio.Future[None] = self._loop.create_future()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if transport.get_extra_info("ssl_object") is None:
            self._direct = transport.get_extra_info("socket").fileno()
        transport.set_write_buffer_limits(high=self._limit, low=self._limit // _LOW_SHARE)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        self.active_at = self._loop.time()
        self.on_data(_RECEIVED[:nbytes])

    def eof_received(self) -> bool:
        self._lose()
        # A plain connection stays open for the answer. TLS has no such half, and asyncio warns of the wish.
        return self._direct >= 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose()
        self._transport = None
        self._direct = -1
        self._stop_probing()
        if not self._gone.done():
            self._gone.set_result(None)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self.release(self)
        self.on_writable()

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.on_lost()

    # The session's side

    @property
    def peer(self) -> str:
        """The client's address, for logs."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        if not isinstance(name, tuple):
            return ""
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    @property
    def unread(self) -> int:
        """Bytes sent that the client's machine has not taken; while it does not read, they get no fewer."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return 0
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def listen(self, on_data: Callable[[memoryview], None], on_lost: Callable[[], None]) -> None:
        """Take the connection over; what came before (TLS reads ahead) is delivered at once."""
        self.on_data, self.on_lost = on_data, on_lost
        early, self._early = self._early, bytearray()
        if early:
            on_data(memoryview(early))
        self.release(_EARLY)

    def _keep(self, data: memoryview) -> None:
        self._early += data
        self.hold(_EARLY)

    def write(self, buffers: list[Buffer]) -> None:
        """Send in order. Nothing is refused: the caller stops when `congested`.

        The buffers are the caller's again afterwards: what was not sent at once was copied.
        """
        transport = self._transport
        if not buffers or transport is None or transport.is_closing():
            return
        self.active_at = self._loop.time()
        if self._direct >= 0 and not transport.get_write_buffer_size():
            rest = self._write_now(buffers)
        else:
            rest = b"".join(buffers)
        if rest:
            transport.write(rest)
        if self.congested and transport.get_write_buffer_size() > self._limit * _FLOOD:
            self.hold(self)

    def _write_now(self, buffers: list[Buffer]) -> bytes:
        """Write past the transport, which would join head and payload first; gives what was not taken.

        Only for plain connections whose transport has nothing to send: it then keeps no state that this
        could upset. Errors are left to the transport, which meets them again with the rest.
        """
        try:
            written = os.writev(self._direct, buffers)
        except OSError:
            written = 0
        for index, buffer in enumerate(buffers):
            if written < len(buffer):
                return b"".join((memoryview(buffer)[written:], *buffers[index + 1 :]))
            written -= len(buffer)
        return b""

    def hold(self, holder: object) -> None:
        """Stop reading from the client until every holder has released."""
        if not self._holds and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._probing = self._loop.call_later(_PROBE_SECONDS, self._probe)
        self._holds.add(holder)

    def release(self, holder: object) -> None:
        """Undo `hold`."""
        if holder in self._holds:
            self._holds.discard(holder)
            if not self._holds:
                self._stop_probing()
                if self._transport is not None and not self._transport.is_closing():
                    self._transport.resume_reading()

    def _probe(self) -> None:
        self._probing = self._loop.call_later(_PROBE_SECONDS, self._probe)
        if not self.congested:  # else the transport is writing, and sees for itself
            active_at = self.active_at
            self.write(self.probe())
            self.active_at = active_at

    def _stop_probing(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None

    def abort(self) -> None:
        """Drop the connection and what waits to be sent."""
        if self._transport is not None:
            self._transport.abort()

    async def close(
        self,
        seconds: float,
        confirmed: Callable[[memoryview], bool] = lambda data: False,
        *,
        patience: float = 0,
    ) -> None:
        """Send what waits, then let the client close; after `seconds` it is cut off.

        :param confirmed: whether bytes of the client say that it waits for this side to close.
        :param patience: seconds that a client which does not take what waits for it may pause.

        What the client still sends is read and dropped: to close over unread bytes would reset the
        connection, and the client could lose the last output and its exit code.
        """
        closed = asyncio.Event()
        self.on_data = lambda data: closed.set() if confirmed(data) else None
        self.on_lost, self.on_writable = closed.set, _nothing
        for holder in list(self._holds):
            self.release(holder)
        transport = self._transport
        if transport is None:
            return
        try:
            if transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
            if not (self.lost or confirmed(memoryview(b""))):
                await self._until_closed(closed, seconds, patience)
            transport.close()
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._gone)
        except (TimeoutError, OSError):
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise

    async def _until_closed(self, closed: asyncio.Event, seconds: float, patience: float) -> None:
        """Wait for the client to close, longer than `seconds` while it has not taken everything.

        :raises TimeoutError: it has, and did not close; or it took nothing for `patience`.
        """
        unread, since = self.unread, self._loop.time()
        while True:
            try:
                async with asyncio.timeout(seconds):
                    await closed.wait()
                return
            except TimeoutError:
                left, now = self.unread, self._loop.time()
                if left < unread:
                    unread, since = left, now
                elif not left or now - since >= patience:
                    raise
