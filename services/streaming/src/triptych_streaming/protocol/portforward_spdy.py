"""Port-forward over SPDY/3.1: two streams with one requestID for each connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from triptych_spdy import (
    Connection,
    DataReceived,
    Headers,
    Limits,
    ProtocolError,
    ResetStatus,
    Role,
    StreamEnded,
    StreamOpened,
    StreamReset,
    find_header,
)

from triptych_streaming.errors import PeerFault
from triptych_streaming.protocol.channels import Buffer
from triptych_streaming.protocol.forward import (
    ForwardDropped,
    ForwardEnded,
    ForwardEvent,
    ForwardOpened,
    ForwardReceived,
    PortForward,
)

_EARLY = 1 << 16
"""Bytes kept of a pair that is half made."""


@dataclass(slots=True)
class _Pair:
    """A data and an error stream on their way together.

    :ivar early: data that came before the error stream did.
    :ivar ended: so did the end of that data.
    """

    name: str
    port: int
    since: float
    error: int = 0
    data: int = 0
    early: bytearray = field(default_factory=bytearray)
    ended: bool = False

    @property
    def whole(self) -> bool:
        return bool(self.error and self.data)


class SpdyPortForward(PortForward):
    """The server's side of one session.

    :param streams: open at once; each connection takes two.
    :param pair_timeout: seconds between the two streams of a connection.
    """

    def __init__(self, *, streams: int = 1000, pair_timeout: float = 30.0) -> None:
        self.name = "SPDY/3.1 portforward.k8s.io"
        limits = Limits(streams=streams, headers=64, header_bytes=1 << 16, control_bytes=1 << 16)
        self._spdy = Connection(Role.SERVER, limits)
        self._pair_timeout = pair_timeout
        self._pairs: dict[str, _Pair] = {}
        self._by_data: dict[int, _Pair] = {}
        self._half: dict[str, _Pair] = {}

    def start(self) -> Sequence[ForwardEvent]:
        return ()

    def receive(self, data: Buffer, now: float) -> Sequence[ForwardEvent]:
        try:
            events = self._spdy.receive_data(data)
        except ProtocolError as error:
            raise PeerFault(str(error)) from error
        found: list[ForwardEvent] = []
        for event in events:
            if isinstance(event, DataReceived):
                self._data(event, found)
            elif isinstance(event, StreamOpened):
                self._open(event, now, found)
            elif isinstance(event, StreamEnded):
                pair = self._by_data.get(event.stream_id)
                if pair is not None and pair.whole:
                    found.append(ForwardEnded(pair.name))
                elif pair is not None:
                    pair.ended = True
            elif isinstance(event, StreamReset):
                pair = self._by_data.get(event.stream_id)
                if pair is not None:
                    self._drop(pair)
                    found.append(ForwardDropped(pair.name))
        return found

    def expire(self, now: float) -> None:
        for pair in [each for each in self._half.values() if now - each.since >= self._pair_timeout]:
            self.fail(pair.name, f"port {pair.port}: the pair of streams was not complete in time")

    def take(self) -> list[Buffer]:
        return self._spdy.buffers_to_send()

    def probe(self) -> list[Buffer]:
        # SETTINGS of nothing: Kubernetes' clients drop any, and no other way to say nothing gets an answer.
        self._spdy.send_settings(())
        return self.take()

    def output(self, pair: str, data: Buffer) -> None:
        found = self._pairs.get(pair)
        if found is not None and self._spdy.can_send(found.data):
            self._spdy.send_data(found.data, data)

    def end_output(self, pair: str) -> None:
        found = self._pairs.get(pair)
        if found is not None:
            self._spdy.end_stream(found.data)
            # It went well. Older client-go (1.26) closes its local connection only when it has read that.
            self._spdy.end_stream(found.error)

    def fail(self, pair: str, message: str) -> None:
        found = self._pairs.get(pair)
        if found is None:
            return
        if self._spdy.can_send(found.error):
            self._spdy.send_data(found.error, message.encode(), fin=True)
        # Reset, not closed: a client that still writes must notice (kubernetes/kubernetes#117493).
        self._drop(found)

    def break_off(self, pair: str, message: str) -> None:
        # No text: client-go ends the whole session when it gets one.
        found = self._pairs.get(pair)
        if found is not None:
            self._drop(found)

    def forget(self, pair: str) -> None:
        found = self._pairs.get(pair)
        if found is not None:
            self._spdy.end_stream(found.data)
            self._spdy.end_stream(found.error)
            self._drop(found)

    def finish(self) -> None:
        for stream_id in self._spdy.open_streams:
            self._spdy.reset_stream(stream_id)
        self._spdy.goaway()

    def _drop(self, pair: _Pair) -> None:
        for stream_id in (pair.data, pair.error):
            self._spdy.reset_stream(stream_id)
        self._pairs.pop(pair.name, None)
        self._half.pop(pair.name, None)
        self._by_data.pop(pair.data, None)

    def _open(self, event: StreamOpened, now: float, found: list[ForwardEvent]) -> None:
        stream_id = event.stream_id
        if not self._spdy.is_open(stream_id):
            return
        kind = find_header(event.headers, b"streamtype")
        port = _port(event.headers)
        name = _request_id(event.headers, stream_id, kind)
        pair = self._pairs.get(name)
        if kind not in (b"error", b"data") or not port or event.unidirectional or _taken(pair, kind):
            self._spdy.reset_stream(stream_id, ResetStatus.REFUSED_STREAM)
            return
        self._spdy.reply(stream_id)
        if pair is None:
            pair = self._pairs[name] = self._half[name] = _Pair(name, port, now)
        if kind == b"error":
            pair.error = stream_id
        else:
            pair.data = stream_id
            self._by_data[stream_id] = pair
        if pair.whole:
            del self._half[name]
            found.append(ForwardOpened(name, pair.port))
            if pair.early:
                found.append(ForwardReceived(name, pair.early))
            if pair.ended:
                found.append(ForwardEnded(name))

    def _data(self, event: DataReceived, found: list[ForwardEvent]) -> None:
        pair = self._by_data.get(event.stream_id)
        if pair is None:
            return
        if pair.whole:
            found.append(ForwardReceived(pair.name, event.data))
            return
        pair.early += event.data
        if len(pair.early) > _EARLY:
            self.fail(pair.name, f"port {pair.port}: too much data before the error stream of the pair")


def _port(headers: Headers) -> int:
    """0 when it is missing or no port number."""
    text = find_header(headers, b"port") or b""
    port = int(text) if text.isdigit() and len(text) <= 5 else 0
    return port if port <= 0xFFFF else 0


def _request_id(headers: Headers, stream_id: int, kind: bytes | None) -> str:
    """Ancient clients send none: their data stream is the one opened right after its error stream."""
    given = find_header(headers, b"requestid")
    if given:
        return given.decode("latin-1")
    return f"stream {stream_id - 2 if kind == b'data' else stream_id}"


def _taken(pair: _Pair | None, kind: bytes | None) -> bool:
    return pair is not None and bool(pair.error if kind == b"error" else pair.data)
