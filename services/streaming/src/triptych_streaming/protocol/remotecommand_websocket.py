"""Exec and attach over WebSocket: each message is a channel number and data."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence

from triptych_streaming.errors import PeerFault
from triptych_streaming.protocol.channels import (
    Buffer,
    Channel,
    ClientClosed,
    OutputRefused,
    RemoteEvent,
    SessionReady,
    StdinEnded,
    StdinReceived,
    StreamSet,
    Version,
)
from triptych_streaming.protocol.remotecommand import RemoteCommand
from triptych_streaming.protocol.resize import ResizeParser
from triptych_streaming.protocol.status import Outcome, status_message
from triptych_streaming.protocol.websocket import Closed, WebSocket
from triptych_streaming.protocol.websocket_frames import MessagePiece

CLOSE_SIGNAL = 255
"""Channel of version 5 whose one byte of payload names the channel that the client closes."""
_BASE64_UNIT = 4
"""Characters that decode to bytes by themselves."""


class ChannelCodec:
    """A channel number and data as one message: binary, or as text in base64."""

    def __init__(self, *, base64: bool) -> None:
        self.base64 = base64

    def encode(self, channel: int, data: Buffer) -> tuple[bytes, Buffer]:
        """The message's first byte, and the rest."""
        if self.base64:
            return b"%d" % channel, b64encode(data)
        return bytes((channel,)), data

    def decode_channel(self, byte: int) -> int:
        """:raises PeerFault: no digit where one belongs."""
        if not self.base64:
            return byte
        if not 0x30 <= byte <= 0x39:
            raise PeerFault(f"websocket: channel {bytes((byte,))!r} is no digit")
        return byte - 0x30

    def decode(self, data: bytes) -> bytes:
        """:raises PeerFault: no base64."""
        if not self.base64:
            return data
        try:
            return b64decode(data, validate=True)
        except ValueError as error:
            raise PeerFault(f"websocket: message is not base64: {error}") from error


class MessageAssembler:
    """Gives messages to channels, in pieces as they come; of base64, up to three characters wait."""

    def __init__(self, codec: ChannelCodec) -> None:
        self._codec = codec
        self._channel: int | None = None
        self._pending = bytearray()
        self._padded = False

    def feed(self, piece: MessagePiece) -> tuple[int, bytes, bool] | None:
        """(channel, data, whether its message ends with it), or None while there is nothing to give.

        :raises PeerFault: a message that is not in the codec's form.
        """
        data = piece.data
        if piece.first:
            self._channel, self._padded = None, False
            self._pending.clear()
        if self._channel is None:
            if not data:
                return None
            self._channel = self._codec.decode_channel(data[0])
            data = data[1:]
        if not self._codec.base64:
            return self._channel, data, piece.last
        if data and self._padded:
            raise PeerFault("websocket: message is not base64: it goes on behind its end")
        self._pending += data
        size = len(self._pending)
        whole = bytes(self._pending[: size if piece.last else size - size % _BASE64_UNIT])
        del self._pending[: len(whole)]
        self._padded = whole.endswith(b"=")
        return self._channel, self._codec.decode(whole), piece.last


class WebSocketRemoteCommand(RemoteCommand):
    """The server's side of one session."""

    def __init__(
        self,
        socket: WebSocket,
        streams: StreamSet,
        version: Version,
        protocol: str,
        *,
        base64: bool,
    ) -> None:
        self.name = f"WebSocket {protocol}".strip()
        self._socket = socket
        self._streams = streams
        self._version = version
        self._codec = ChannelCodec(base64=base64)
        self._messages = MessageAssembler(self._codec)
        self._resize = ResizeParser()
        self._stdin_open = streams.stdin
        self._signal = b""
        self._refused: set[Channel] = set()

    def start(self) -> Sequence[RemoteEvent]:
        # An empty message on the lowest channel that the server writes tells the client that all is set up.
        if self._streams.stdout:
            self._send(Channel.STDOUT, b"")
        elif self._streams.stderr:
            self._send(Channel.STDERR, b"")
        else:
            self._send(Channel.ERROR, b"")
        return (SessionReady(),)

    def receive(self, data: Buffer) -> Sequence[RemoteEvent]:
        found: list[RemoteEvent] = []
        for piece in self._socket.receive(data):
            if isinstance(piece, Closed):
                found.append(ClientClosed())
                continue
            message = self._messages.feed(piece)
            if message is not None:
                self._message(*message, found)
        return found

    def take(self) -> list[Buffer]:
        return self._socket.take()

    def probe(self) -> list[Buffer]:
        return self._socket.probe()

    def output(self, channel: Channel, data: Buffer) -> None:
        wanted = self._streams.stdout if channel is Channel.STDOUT else self._streams.stderr
        if wanted and channel not in self._refused:
            self._send(channel, data)

    def end_output(self, channel: Channel) -> None:
        """WebSocket has no half-close from the server; the status tells that all output was sent."""

    def finish(self, outcome: Outcome) -> None:
        message = status_message(outcome, self._version)
        if message:
            self._send(Channel.ERROR, message)
        self._socket.close()

    def confirmed(self, data: Buffer) -> bool:
        return self._socket.confirmed(data)

    def _send(self, channel: Channel, data: Buffer) -> None:
        head, payload = self._codec.encode(channel, data)
        self._socket.send(head, payload, text=self._codec.base64)

    def _message(self, channel: int, data: bytes, last: bool, found: list[RemoteEvent]) -> None:
        if channel == Channel.STDIN:
            if self._stdin_open and data:
                found.append(StdinReceived(data))
        elif channel == Channel.RESIZE:
            found.extend(self._resize.feed(data))
        elif channel == CLOSE_SIGNAL and self._version >= Version.V5:
            self._signal += data
            if len(self._signal) > 1 or (last and not self._signal):
                raise PeerFault(f"websocket: a close signal of {len(self._signal)} bytes, 1 belongs there")
            if last:
                signal, self._signal = self._signal, b""
                self._close_signal(signal, found)

    def _close_signal(self, data: bytes, found: list[RemoteEvent]) -> None:
        if data[0] == Channel.STDIN and self._stdin_open:
            self._stdin_open = False
            found.append(StdinEnded())
        elif data[0] in (Channel.STDOUT, Channel.STDERR):
            channel = Channel(data[0])
            if channel not in self._refused:
                self._refused.add(channel)
                found.append(OutputRefused(channel))
