"""The WebSocket layer under both kinds of sessions: messages in pieces, as they come.

Control frames are answered by websockets' Sans-I/O core. Messages go past it: it would keep each frame until
that is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from triptych_streaming.errors import PeerFault
from triptych_streaming.protocol.channels import Buffer
from triptych_streaming.protocol.websocket_frames import FrameFault, FrameReader, MessagePiece

_SHORT = 126
_MEDIUM = 1 << 16


@dataclass(frozen=True, slots=True)
class Closed:
    """The client sent its close frame."""


class WebSocket:
    """The server's side of an open WebSocket."""

    def __init__(self, protocol: ServerProtocol, frames: FrameReader) -> None:
        self._protocol = protocol
        self._frames = frames
        self._client_closed = False
        self._out: list[Buffer] = []

    def receive(self, data: Buffer) -> Iterator[MessagePiece | Closed]:
        """Give what the client's bytes hold; pings are answered on the way.

        :raises PeerFault: no WebSocket frames, or one above the size limit.
        """
        try:
            for found in self._frames.feed(data):
                if isinstance(found, MessagePiece):
                    yield found
                    continue
                self._control(found)
                if self._client_closed:
                    yield Closed()
                    return
        except FrameFault as fault:
            self._protocol.fail(fault.code, str(fault))
            raise PeerFault(f"websocket: {fault}") from fault

    def _control(self, frame: bytes) -> None:
        self._protocol.receive_data(frame)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode == Opcode.CLOSE:
                self._client_closed = True
        if self._protocol.parser_exc is not None:
            raise PeerFault(f"websocket: {self._protocol.parser_exc}") from self._protocol.parser_exc

    def send(self, prefix: bytes, payload: Buffer, *, text: bool = False) -> None:
        """Queue one message, `prefix` and `payload` together, the payload by reference.

        The frame is laid out here: a server's frames are not masked, and going through the core would copy
        each payload twice.
        """
        if self._protocol.state is not State.OPEN:
            return
        self._collect()
        opcode = Opcode.TEXT if text else Opcode.BINARY
        self._out += (_head(opcode, len(prefix) + len(payload)) + prefix, payload)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Send the close frame, once."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)

    def confirmed(self, data: Buffer) -> bool:
        """Whether the client has sent its close frame; then it waits for the server to hang up."""
        try:
            return self._client_closed or any(isinstance(each, Closed) for each in self.receive(data))
        except PeerFault:
            return True

    def probe(self) -> list[Buffer]:
        """A pong that nobody asked for, to send now: client-go takes it for the answer that it waits for."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_pong(b"")
        return self.take()

    def take(self) -> list[Buffer]:
        """Bytes that wait to be sent."""
        self._collect()
        out, self._out = self._out, []
        return out

    def _collect(self) -> None:
        self._out += [data for data in self._protocol.data_to_send() if data]


def open_websocket(frame_limit: int) -> WebSocket:
    """The server's side of a WebSocket whose handshake is answered.

    :param frame_limit: bytes of the largest frame taken; messages in several frames may be of any size.
    """
    return WebSocket(ServerProtocol(state=State.OPEN), FrameReader(frame_limit))


def _head(opcode: int, length: int) -> bytes:
    """A frame's head: final, not masked (RFC 6455 section 5.2)."""
    if length < _SHORT:
        return bytes((0x80 | opcode, length))
    if length < _MEDIUM:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big")
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big")
