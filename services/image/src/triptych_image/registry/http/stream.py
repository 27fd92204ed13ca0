"""A connected socket, plain or TLS, driven by readiness; the part below HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
import struct
import termios
from typing import Final

from triptych_image.registry.http.nested import NestedTls

_SPLICE_MOST: Final = 1 << 20
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
# Below this a wait for more bytes is worth less than the bytes.
_WAKE_BYTES: Final = 256 << 10
# What OpenSSL may hold of a record of which the rest is still on the wire.
_TLS_SLACK: Final = 32 << 10


class Stream:
    """Bytes to and from a peer.

    :ivar waited: seconds spent waiting for the peer, in total; what stall detection counts.
    :ivar received: bytes read from it, in total.
    """

    __slots__ = ("_error", "_loop", "_lowat", "_since", "_waited", "_waiter", "received", "sock", "tls")

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._since = 0.0
        self._waited = 0.0
        self._lowat = 1
        self.sock: socket.socket | NestedTls = sock
        self.tls = False
        self.received = 0

    @property
    def waited(self) -> float:
        ongoing = self._loop.time() - self._since if self._waiter is not None else 0.0
        return self._waited + ongoing

    def fail(self, error: BaseException) -> None:
        """Make the wait that is under way, or the next one, end with an error."""
        self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def nudge(self) -> None:
        """Let a wait for many bytes end with the few that are there."""
        if self._lowat > 1:
            self.expect(1)
            if self._waiter is not None:
                _wake(self._waiter)

    def expect(self, remaining: int) -> None:
        """Say how many bytes are certain to come, so that one wake-up brings many of them."""
        slack = _TLS_SLACK if self.tls else 0
        lowat = max(1, min(_WAKE_BYTES, remaining - slack))
        if lowat != self._lowat:
            self._lowat = lowat
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, lowat)

    async def read_into(self, view: memoryview) -> int:
        """Read what is there, waiting for at least a byte; 0 at the end."""
        while True:
            try:
                count = self.sock.recv_into(view)
            except (BlockingIOError, ssl.SSLWantReadError):
                await self._ready(write=False)
            except ssl.SSLWantWriteError:
                await self._ready(write=True)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0
            else:
                self.received += count
                return count

    def read_more(self, view: memoryview) -> int:
        """Read what is there without waiting; 0 when nothing is."""
        try:
            count = self.sock.recv_into(view)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0
        self.received += count
        return count

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            try:
                sent = self.sock.send(view)
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self._ready(write=True)
            except ssl.SSLWantReadError:
                await self._ready(write=False)
            else:
                view = view[sent:]

    async def splice_some(self, pipe: int, most: int) -> int:
        """Move bytes into a pipe inside the kernel, waiting for at least one; 0 at the end.

        Plain sockets only. Waits for the pipe's reader are not counted as waits for the peer.

        :raises BrokenPipeError: when the pipe's reader is gone.
        """
        fd = self.sock.fileno()
        while True:
            try:
                count = os.splice(fd, pipe, min(most, _SPLICE_MOST), flags=_SPLICE_FLAGS)
            except BlockingIOError:
                if _readable_bytes(fd):
                    await writable(pipe)
                else:
                    await self._ready(write=False)
            else:
                self.received += count
                return count

    def is_idle(self) -> bool:
        """Whether it is open and silent, so fit for another request."""
        if self._error is not None:
            return False
        try:
            if self.tls:
                self.sock.recv_into(memoryview(bytearray(1)))
            elif isinstance(self.sock, socket.socket):
                self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it at once."""
        with contextlib.suppress(OSError):
            self.sock.close()

    async def secure(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Speak TLS from here on, inside the TLS that there may be already.

        :raises ssl.SSLError: when the handshake fails.
        """
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock = NestedTls(self.sock, context, server_hostname)
        else:
            assert isinstance(self.sock, socket.socket)
            self.sock = context.wrap_socket(
                self.sock, server_hostname=server_hostname, do_handshake_on_connect=False
            )
        self.tls = True
        while True:
            try:
                self.sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._ready(write=False)
            except ssl.SSLWantWriteError:
                await self._ready(write=True)
            else:
                return

    async def _ready(self, *, write: bool) -> None:
        if self._error is not None:
            raise self._error
        waiter = self._loop.create_future()
        self._waiter, self._since = waiter, self._loop.time()
        fd = self.sock.fileno()
        (self._loop.add_writer if write else self._loop.add_reader)(fd, _wake, waiter)
        try:
            await waiter
        finally:
            (self._loop.remove_writer if write else self._loop.remove_reader)(fd)
            self._waiter = None
            self._waited += self._loop.time() - self._since


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _readable_bytes(fd: int) -> int:
    count: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0]
    return count


async def writable(fd: int) -> None:
    """Wait until a descriptor can be written to, or its reader is gone."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _wake, waiter)
    try:
        await waiter
    finally:
        loop.remove_writer(fd)


async def write_all(fd: int, view: memoryview) -> None:
    """Write all of it to a non-blocking descriptor.

    :raises BrokenPipeError: when the reader is gone.
    """
    while view:
        try:
            count = os.write(fd, view)
        except BlockingIOError:
            await writable(fd)
        else:
            view = view[count:]
