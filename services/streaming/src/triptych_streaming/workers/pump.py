"""Moving bytes by readiness callbacks: no task and no buffer for a stream that has nothing to say."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from triptych_streaming.protocol.channels import Buffer

CHUNK = 1 << 17
_FULL = 1 << 16
"""A piece of this size says that more may wait: what a pipe holds."""
_TURNS = 4
"""Full chunks taken from one descriptor before others get their turn."""
_SMALL = 1 << 14
_PAUSE = 0.001
_PIPE_MAX = 1 << 20
"""Default of /proc/sys/fs/pipe-max-size."""

# What is read is passed on before the next read, so all sources of the event loop share one buffer.
_SCRATCH = memoryview(bytearray(CHUNK))

Read = Callable[[memoryview], int]
Write = Callable[[Buffer], int]


def reader_of(fd: int) -> Read:
    """Reads from a pipe or terminal."""
    return lambda into: os.readv(fd, (into,))


class Source:
    """Reads a descriptor whenever it is readable, unless paused. The owner closes the descriptor.

    :param on_data: gets each piece, as a view that is valid during the call only; may pause or close the
        source.
    :param on_end: called once at the end; a terminal's EIO and a reset count as such.
    :ivar error: what ended it, when that was an error.
    """

    __slots__ = ("_active", "_drained", "_fd", "_loop", "_on_data", "_on_end", "_read", "ended", "error")

    def __init__(
        self, fd: int, read: Read, on_data: Callable[[memoryview], None], on_end: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._read = read
        self._on_data = on_data
        self._on_end = on_end
        self._active = False
        self._drained = 0
        self.ended = False
        self.error: OSError | None = None

    def resume(self) -> None:
        if not self._active and not self.ended:
            self._active = True
            self._loop.add_reader(self._fd, self._ready)

    def pause(self) -> None:
        if self._active:
            self._active = False
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
        """Stop for good, without `on_end`."""
        self.pause()
        self.ended = True

    def _ready(self) -> None:
        for _ in range(_TURNS):
            try:
                size = self._read(_SCRATCH)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # The other side of a terminal is closed: that is how it ends.
                self.error = None if error.errno == errno.EIO else error
                size = 0
            if not size:
                self.close()
                self._on_end()
                return
            self._on_data(_SCRATCH[:size])
            if size < _FULL or not self._active:
                return

    def drain(self) -> bool:
        """Read all that is there; False when that was cut short by a pause: then call again after it.

        For after the writer's end: more than a pipe's largest size cannot be its own.
        """
        while self._active and self._drained <= _PIPE_MAX:
            try:
                size = self._read(_SCRATCH)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError:
                size = 0
            if not size:
                self.close()
                self._on_end()
                return True
            self._drained += size
            self._on_data(_SCRATCH[:size])
        return self.ended or self._drained > _PIPE_MAX


class Sink:
    """Writes to a descriptor, keeping what it does not take at once.

    :param on_full: more than `limit` bytes wait: stop the producer.
    :param on_room: all was written: let it go on.
    :param on_closed: called once, when all was written after `end`, or the reader went away.
    """

    __slots__ = (
        "_active",
        "_ending",
        "_fd",
        "_limit",
        "_loop",
        "_on_closed",
        "_on_full",
        "_on_room",
        "_timer",
        "_write",
        "closed",
        "pending",
    )

    def __init__(
        self,
        fd: int,
        write: Write,
        *,
        limit: int,
        on_full: Callable[[], None],
        on_room: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._write = write
        self._limit = limit
        self._on_full = on_full
        self._on_room = on_room
        self._on_closed = on_closed
        self._active = False
        self._timer: asyncio.TimerHandle | None = None
        self._ending = False
        self.closed = False
        self.pending = bytearray()

    def write(self, data: Buffer) -> None:
        """Take `data`; it is written or copied before this returns. Dropped after `end`."""
        if self.closed or self._ending:
            return
        if self.pending:
            self.pending += data
        else:
            written = self._try(memoryview(data))
            if written == len(data) or self.closed:
                return
            self.pending += memoryview(data)[written:]
            self._watch(True)
        if len(self.pending) > self._limit:
            self._on_full()

    def end(self) -> None:
        """Close after what waits is written."""
        if not self._ending:
            self._ending = True
            if not self.pending:
                self._finish()

    def close(self) -> None:
        """Close now and drop what waits, without `on_closed`."""
        self._watch(False)
        self.closed = True
        self.pending = bytearray()

    def _try(self, view: memoryview) -> int:
        total = 0
        while total < len(view):
            try:
                total += self._write(view[total:])
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # The reader is gone. Whoever waits for room need not wait any longer.
                self._finish()
                self._on_room()
                return len(view)
        return total

    def _ready(self) -> None:
        rested, self._timer = self._timer is not None, None
        with memoryview(self.pending) as view:
            written = self._try(view)
        if self.closed:
            return
        if written == len(self.pending):
            self.pending = bytearray()
            self._watch(False)
            if self._ending:
                self._finish()
            self._on_room()
            return
        del self.pending[:written]
        if written < _SMALL and (written or not rested):
            # A pipe is writable for each page that its reader takes. Let it take more before the next look;
            # one that takes nothing meanwhile is waited for.
            self._watch(False)
            self._timer = self._loop.call_later(_PAUSE, self._ready)
        else:
            self._watch(True)

    def _watch(self, active: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if active != self._active:
            self._active = active
            if active:
                self._loop.add_writer(self._fd, self._ready)
            else:
                self._loop.remove_writer(self._fd)

    def _finish(self) -> None:
        if not self.closed:
            self._watch(False)
            self.closed = True
            self.pending = bytearray()
            self._on_closed()


def sender_of(sock: socket.socket, packet: int = 0) -> Write:
    """Writes to a socket; in pieces of at most `packet` bytes where borders matter."""
    if packet:
        return lambda data: sock.send(memoryview(data)[:packet])
    return sock.send
