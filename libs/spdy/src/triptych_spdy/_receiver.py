"""The receiving half of a connection: from frames to events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triptych_spdy import _events as events
from triptych_spdy import _frames as frames
from triptych_spdy._constants import (
    INITIAL_WINDOW,
    MAX_WINDOW,
    ControlFlag,
    FrameType,
    ResetStatus,
    SettingId,
)
from triptych_spdy._flow import FlowControl
from triptych_spdy._headers import HeaderDecompressor, Headers, decode_block
from triptych_spdy._reader import ControlFrame, DataPiece, FrameReader
from triptych_spdy._stream import Stream
from triptych_spdy.errors import InvalidHeaders, ProtocolError

if TYPE_CHECKING:
    from triptych_spdy._connection import Buffer, Connection


class Receiver:
    """Interprets the peer's frames against the connection's state."""

    def __init__(
        self,
        connection: Connection,
        streams: dict[int, Stream],
        flow: FlowControl | None,
        out: list[Buffer],
    ) -> None:
        self.goaway_sent = False
        self.goaway_received = False
        self.last_peer_stream = 0
        self.peer_max_streams: int | None = None
        self.pings: set[int] = set()
        self._parity = 1 if connection.role.value == "server" else 0
        self._limits = connection.limits
        self._streams = streams
        self._flow = flow
        self._out = out
        self._faults = 0
        self._reader = FrameReader(self._limits.control_bytes)
        self._decompressor = HeaderDecompressor(self._limits.header_bytes)

    def receive(self, data: Buffer, found: list[events.Event]) -> None:
        """Append to `found` what `data` means.

        :raises ProtocolError: on a fault of the connection.
        """
        for frame in self._reader.feed(data):
            if isinstance(frame, DataPiece):
                self._data(frame, found)
            else:
                self._control(frame, found)

    def _control(self, frame: ControlFrame, found: list[events.Event]) -> None:
        body = frame.body
        match frame.kind:
            case FrameType.SYN_STREAM:
                self._syn_stream(frames.parse_syn_stream(body), frame.flags, found)
            case FrameType.SYN_REPLY:
                self._syn_reply(frames.parse_stream_block(FrameType.SYN_REPLY, body), frame.flags, found)
            case FrameType.HEADERS:
                self._headers(frames.parse_stream_block(FrameType.HEADERS, body), frame.flags, found)
            case FrameType.RST_STREAM:
                self._rst_stream(frames.parse_word_pair(FrameType.RST_STREAM, body), found)
            case FrameType.SETTINGS:
                self._settings(frames.parse_settings(body), frame.flags, found)
            case FrameType.PING:
                self._ping(frames.parse_ping(body), found)
            case FrameType.GOAWAY:
                goaway = frames.parse_word_pair(FrameType.GOAWAY, body)
                self.goaway_received = True
                found.append(events.GoAwayReceived(goaway.stream_id, goaway.value))
            case FrameType.WINDOW_UPDATE:
                self._window_update(frames.parse_word_pair(FrameType.WINDOW_UPDATE, body), found)
            case _:
                return  # section 2.2.1: frames of unknown type are skipped

    def _inflate(self, block: bytes) -> Headers | str:
        """The headers, or what is wrong with them where only the stream suffers."""
        inflated = self._decompressor.decompress(block)
        try:
            return decode_block(inflated, self._limits.headers)
        except InvalidHeaders as error:
            return str(error)

    def _syn_stream(self, frame: frames.SynStream, flags: int, found: list[events.Event]) -> None:
        headers = self._inflate(frame.block)
        stream_id = frame.stream_id
        if stream_id == 0:
            raise ProtocolError("SYN_STREAM for stream 0")
        if self.goaway_sent:
            return
        if stream_id % 2 != self._parity or stream_id <= self.last_peer_stream:
            # Refused without touching a live stream of that number.
            self._refuse(stream_id, ResetStatus.PROTOCOL_ERROR)
            return
        self.last_peer_stream = stream_id
        if isinstance(headers, str):
            self._refuse(stream_id, ResetStatus.PROTOCOL_ERROR)
            return
        limit = self._limits.streams
        if len(self._streams) >= limit and sum(each % 2 == self._parity for each in self._streams) >= limit:
            # No fault: the peer does not know the limit, and may try again for as long as it lives.
            self._reset(stream_id, ResetStatus.REFUSED_STREAM)
            return
        stream = Stream(stream_id, send_window=self._flow.initial_send if self._flow else INITIAL_WINDOW)
        stream.remote_closed = bool(flags & ControlFlag.FIN)
        stream.local_closed = bool(flags & ControlFlag.UNIDIRECTIONAL)
        if not stream.closed:
            self._streams[stream_id] = stream
        found.append(
            events.StreamOpened(
                stream_id, headers, frame.associated, frame.priority, frame.slot, stream.local_closed
            )
        )
        if stream.remote_closed:
            found.append(events.StreamEnded(stream_id))

    def _syn_reply(self, frame: frames.StreamBlock, flags: int, found: list[events.Event]) -> None:
        headers = self._inflate(frame.block)
        stream = self._streams.get(frame.stream_id)
        if stream is None or frame.stream_id % 2 == self._parity:
            self._unknown(frame.stream_id)
        elif isinstance(headers, str):
            self._fail(stream, ResetStatus.PROTOCOL_ERROR, headers, found)
        elif stream.replied:
            self._fail(stream, ResetStatus.STREAM_IN_USE, "a second SYN_REPLY", found)
        elif stream.remote_closed:
            self._fail(stream, ResetStatus.STREAM_ALREADY_CLOSED, "SYN_REPLY after its end", found)
        else:
            stream.replied = True
            found.append(events.StreamReplied(stream.stream_id, headers))
            self._end_if(flags & ControlFlag.FIN, stream, found)

    def _headers(self, frame: frames.StreamBlock, flags: int, found: list[events.Event]) -> None:
        headers = self._inflate(frame.block)
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._unknown(frame.stream_id)
        elif isinstance(headers, str):
            self._fail(stream, ResetStatus.PROTOCOL_ERROR, headers, found)
        elif stream.remote_closed:
            self._fail(stream, ResetStatus.STREAM_ALREADY_CLOSED, "HEADERS after its end", found)
        else:
            found.append(events.HeadersReceived(stream.stream_id, headers))
            self._end_if(flags & ControlFlag.FIN, stream, found)

    def _data(self, piece: DataPiece, found: list[events.Event]) -> None:
        stream = self._streams.get(piece.stream_id)
        size = len(piece.data)
        within = True
        if self._flow is not None and size:
            session_within, within = self._flow.arrived(stream, size)
            if not session_within:
                raise ProtocolError("more data than the session window allows")
        if stream is None:
            self._unknown(piece.stream_id)
        elif not within:
            self._fail(stream, ResetStatus.FLOW_CONTROL_ERROR, "more data than its window allows", found)
        elif stream.remote_closed:
            self._fail(stream, ResetStatus.STREAM_ALREADY_CLOSED, "DATA after its end", found)
        elif not stream.replied and piece.stream_id % 2 != self._parity:
            self._fail(stream, ResetStatus.PROTOCOL_ERROR, "DATA before SYN_REPLY", found)
        else:
            if size:
                found.append(events.DataReceived(piece.stream_id, piece.data))
            self._end_if(piece.fin, stream, found)
            return
        self._give_back(size)

    def _give_back(self, size: int) -> None:
        """Return the session's room of bytes that nobody will read."""
        if self._flow is not None and size:
            session, _ = self._flow.acknowledge(None, size)
            if session:
                self._out.append(frames.word_pair(FrameType.WINDOW_UPDATE, frames.WordPair(0, session)))

    def _rst_stream(self, frame: frames.WordPair, found: list[events.Event]) -> None:
        if frame.stream_id == 0 or frame.value == 0:
            raise ProtocolError(f"RST_STREAM for stream {frame.stream_id} with status {frame.value}")
        if self._streams.pop(frame.stream_id, None) is not None:
            found.append(events.StreamReset(frame.stream_id, frame.value))

    def _settings(self, entries: tuple[frames.Setting, ...], flags: int, found: list[events.Event]) -> None:
        for entry in entries:
            if entry.id == SettingId.MAX_CONCURRENT_STREAMS:
                self.peer_max_streams = entry.value
            elif entry.id == SettingId.INITIAL_WINDOW_SIZE and self._flow is not None:
                if entry.value > MAX_WINDOW:
                    raise ProtocolError(f"an initial window of {entry.value} bytes")
                change = entry.value - self._flow.initial_send
                self._flow.initial_send = entry.value
                for stream in self._streams.values():
                    stream.send_window += change
        found.append(events.SettingsReceived(entries, bool(flags & ControlFlag.CLEAR_SETTINGS)))

    def _ping(self, ping_id: int, found: list[events.Event]) -> None:
        if ping_id % 2 == self._parity:
            self._out.append(frames.ping(ping_id))
            found.append(events.PingReceived(ping_id))
        elif ping_id in self.pings:
            self.pings.discard(ping_id)
            found.append(events.PingAcknowledged(ping_id))

    def _window_update(self, frame: frames.WordPair, found: list[events.Event]) -> None:
        delta = frame.value & MAX_WINDOW
        if self._flow is not None:
            stream = self._streams.get(frame.stream_id)
            if frame.stream_id and stream is None:
                return  # it closed while the update was under way
            if not delta or not self._flow.widen(stream, delta):
                if stream is None:
                    raise ProtocolError(f"a session window update of {delta}")
                self._fail(stream, ResetStatus.FLOW_CONTROL_ERROR, f"a window update of {delta}", found)
                return
        found.append(events.WindowUpdated(frame.stream_id, delta))

    def _end_if(self, fin: int | bool, stream: Stream, found: list[events.Event]) -> None:
        if fin:
            stream.remote_closed = True
            if stream.local_closed:
                self._streams.pop(stream.stream_id, None)
            found.append(events.StreamEnded(stream.stream_id))

    def _fail(self, stream: Stream, status: ResetStatus, reason: str, found: list[events.Event]) -> None:
        self._streams.pop(stream.stream_id, None)
        self._refuse(stream.stream_id, status)
        found.append(events.StreamReset(stream.stream_id, status, remote=False, reason=reason))

    def _unknown(self, stream_id: int) -> None:
        """A frame for no live stream: normal after a reset that crossed it, else the peer's fault."""
        if stream_id == 0:
            raise ProtocolError("a frame of a stream for stream 0")
        if stream_id % 2 == self._parity and stream_id > self.last_peer_stream and not self.goaway_sent:
            self._refuse(stream_id, ResetStatus.INVALID_STREAM)

    def _refuse(self, stream_id: int, status: ResetStatus) -> None:
        self._faults += 1
        if self._faults > self._limits.stream_faults:
            raise ProtocolError(f"more than {self._limits.stream_faults} faults")
        self._reset(stream_id, status)

    def _reset(self, stream_id: int, status: ResetStatus) -> None:
        self._out.append(frames.word_pair(FrameType.RST_STREAM, frames.WordPair(stream_id, status)))
