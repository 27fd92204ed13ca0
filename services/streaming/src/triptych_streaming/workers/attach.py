"""A running container's stdio by its monitor's attach socket.

conmon listens with SOCK_SEQPACKET. Each packet from it is one byte that names the stream (2 standard output
or terminal, 3 standard error) and output; packets to it are input as they are, at most 32 KiB. Shutting the
socket down for writing is the end of this client's input. The socket ends when the container does. The
terminal's size goes to conmon's control fifo as "1 HEIGHT WIDTH\\n".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

from triptych_streaming.errors import ContainerGone
from triptych_streaming.protocol.channels import Channel
from triptych_streaming.protocol.status import Outcome
from triptych_streaming.records import AttachSession
from triptych_streaming.workers.backend import Backend, Input, Output
from triptych_streaming.workers.pump import sender_of

_PACKET_IN = 8192
_STDERR = 3
_LONGEST = 107
_AGAIN = 0.05
"""Seconds until a monitor that others wait for is asked again: the kernel does not tell of room."""


def _split(packet: memoryview) -> tuple[Channel, memoryview]:
    return (Channel.STDERR if packet[0] == _STDERR else Channel.STDOUT), packet[1:]


class AttachBackend(Backend):
    """One client's connection to a monitor.

    The monitor writes to its clients one after the other, and waits for each: while one is not read, the
    container, its log and the other clients stand still.

    :param deadline: seconds for the monitor to answer.
    """

    shared = True

    def __init__(self, session: AttachSession, *, deadline: float) -> None:
        self._session = session
        self._deadline = deadline
        self._streams = session.streams
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._connected = False
        self._ended = asyncio.get_running_loop().create_future()

    async def prepare(self) -> None:
        """Nothing: from a connection on, output would have to be kept for the client."""

    async def start(self) -> None:
        """Connect to the monitor.

        :raises ContainerGone: it does not listen any more.
        """
        try:
            async with asyncio.timeout(self._deadline):
                await _connect(self._socket, self._session.attach_socket)
        except (OSError, TimeoutError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no answer"
            raise ContainerGone(
                f"container {self._session.target.container_id} is not running: "
                f"its monitor's attach socket: {reason}"
            ) from error
        self._connected = True

    @property
    def outputs(self) -> Mapping[Channel, Output]:
        if not self._connected:
            return {}
        return {Channel.STDOUT: Output(self._socket.fileno(), self._receive, _split)}

    def _receive(self, into: memoryview) -> int:
        try:
            size = self._socket.recv_into(into)
        except BlockingIOError:
            raise
        except OSError:
            size = 0
        if not size and not self._ended.done():
            self._ended.set_result(None)
        return size

    @property
    def input(self) -> Input | None:
        if not self._streams.stdin:
            return None
        return Input(self._socket.fileno(), sender_of(self._socket, _PACKET_IN), self._end_input)

    def _end_input(self) -> None:
        # What that means for the container is the monitor's to know (stdin_once).
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def resize(self, width: int, height: int) -> None:
        if not (self._streams.tty and self._session.control_fifo):
            return
        with contextlib.suppress(OSError):
            # Opening fails at once when the monitor is gone and nobody reads.
            fd = os.open(self._session.control_fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, b"1 %d %d\n" % (height, width))
            finally:
                os.close(fd)

    @property
    def separate_outputs(self) -> bool:
        return False

    def close_output(self, channel: Channel) -> None:
        """Both outputs come by one socket: the other one goes on."""

    async def wait(self) -> Outcome:
        await asyncio.shield(self._ended)
        return Outcome()

    async def hang_up(self, seconds: float) -> Outcome:
        await self.close()
        return Outcome()

    async def close(self) -> None:
        self._socket.close()


async def _connect(connected: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= _LONGEST:
        await _connect_short(connected, path)
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await _connect_short(connected, f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)


async def _connect_short(connected: socket.socket, path: str) -> None:
    """Unlike asyncio's, which takes a monitor with a full queue (ten clients) for connected."""
    while True:
        try:
            connected.connect(path)
        except BlockingIOError:
            await asyncio.sleep(_AGAIN)
        else:
            return
