"""Port-forward over WebSocket: the old form with fixed ports, and the tunnel that carries SPDY."""

from __future__ import annotations

from collections.abc import Sequence

from triptych_streaming.protocol.channels import Buffer, ClientClosed
from triptych_streaming.protocol.forward import (
    ForwardEvent,
    ForwardOpened,
    ForwardReceived,
    PortForward,
)
from triptych_streaming.protocol.portforward_spdy import SpdyPortForward
from triptych_streaming.protocol.remotecommand_websocket import ChannelCodec, MessageAssembler
from triptych_streaming.protocol.websocket import Closed, WebSocket


class WebSocketPortForward(PortForward):
    """Channels 2i (data) and 2i+1 (errors) for the i-th port of the request; one connection each.

    The first message on each is the port, 16 bits, least significant byte first.
    """

    half_closes = False

    def __init__(self, socket: WebSocket, ports: Sequence[int], protocol: str, *, base64: bool) -> None:
        self.name = f"WebSocket {protocol}".strip()
        self._socket = socket
        self._ports = tuple(ports)
        self._codec = ChannelCodec(base64=base64)
        self._messages = MessageAssembler(self._codec)
        self._open: set[int] = set()

    def start(self) -> Sequence[ForwardEvent]:
        found: list[ForwardEvent] = []
        for index, port in enumerate(self._ports):
            self._send(2 * index, port.to_bytes(2, "little"))
            self._send(2 * index + 1, port.to_bytes(2, "little"))
            self._open.add(index)
            found.append(ForwardOpened(str(index), port))
        return found

    def receive(self, data: Buffer, now: float) -> Sequence[ForwardEvent]:
        found: list[ForwardEvent] = []
        for piece in self._socket.receive(data):
            if isinstance(piece, Closed):
                found.append(ClientClosed())
                continue
            message = self._messages.feed(piece)
            if message is None:
                continue
            index, is_error = divmod(message[0], 2)
            if not is_error and index in self._open and message[1]:
                found.append(ForwardReceived(str(index), message[1]))
        return found

    def expire(self, now: float) -> None:
        """Pairs are made with the session: none can be half made."""

    def take(self) -> list[Buffer]:
        return self._socket.take()

    def probe(self) -> list[Buffer]:
        return self._socket.probe()

    def output(self, pair: str, data: Buffer) -> None:
        if int(pair) in self._open:
            self._send(2 * int(pair), data)

    def end_output(self, pair: str) -> None:
        """This form has no half-close; the session ends when its last connection does."""

    def fail(self, pair: str, message: str) -> None:
        if int(pair) in self._open:
            self._send(2 * int(pair) + 1, message.encode())
            self.forget(pair)

    def break_off(self, pair: str, message: str) -> None:
        self.fail(pair, message)

    def forget(self, pair: str) -> None:
        self._open.discard(int(pair))
        if not self._open:
            self._socket.close()

    def finish(self) -> None:
        self._socket.close()

    def confirmed(self, data: Buffer) -> bool:
        return self._socket.confirmed(data)

    def _send(self, channel: int, data: Buffer) -> None:
        head, payload = self._codec.encode(channel, data)
        self._socket.send(head, payload, text=self._codec.base64)


class TunnelPortForward(PortForward):
    """A SPDY connection inside binary messages, whose borders mean nothing."""

    def __init__(self, socket: WebSocket, inner: SpdyPortForward, protocol: str) -> None:
        self.name = f"WebSocket {protocol}"
        self._socket = socket
        self._inner = inner

    def start(self) -> Sequence[ForwardEvent]:
        return self._inner.start()

    def receive(self, data: Buffer, now: float) -> Sequence[ForwardEvent]:
        found: list[ForwardEvent] = []
        for piece in self._socket.receive(data):
            if isinstance(piece, Closed):
                found.append(ClientClosed())
            else:
                found.extend(self._inner.receive(piece.data, now))
        return found

    def expire(self, now: float) -> None:
        self._inner.expire(now)

    def take(self) -> list[Buffer]:
        self._wrap()
        return self._socket.take()

    def probe(self) -> list[Buffer]:
        return self._socket.probe()

    def output(self, pair: str, data: Buffer) -> None:
        self._inner.output(pair, data)

    def end_output(self, pair: str) -> None:
        self._inner.end_output(pair)

    def fail(self, pair: str, message: str) -> None:
        self._inner.fail(pair, message)

    def break_off(self, pair: str, message: str) -> None:
        self._inner.break_off(pair, message)

    def forget(self, pair: str) -> None:
        self._inner.forget(pair)

    def finish(self) -> None:
        self._inner.finish()
        self._wrap()
        self._socket.close()

    def confirmed(self, data: Buffer) -> bool:
        return self._socket.confirmed(data)

    def _wrap(self) -> None:
        """Everything that waits becomes one message: a head of eight bytes is worth no frame of its own."""
        buffers = self._inner.take()
        if len(buffers) == 1:
            self._socket.send(b"", buffers[0])
        elif buffers:
            self._socket.send(b"", b"".join(buffers))
