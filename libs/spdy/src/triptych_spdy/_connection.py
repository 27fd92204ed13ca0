"""One end of a SPDY connection."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from triptych_spdy import _frames as frames
from triptych_spdy._constants import (
    FLAG_FIN,
    INITIAL_WINDOW,
    MAX_LENGTH,
    MAX_STREAM_ID,
    ControlFlag,
    FrameType,
    GoAwayStatus,
    ResetStatus,
)
from triptych_spdy._events import Event
from triptych_spdy._flow import FlowControl
from triptych_spdy._headers import HeaderCompressor, HeaderValue, encode_block
from triptych_spdy._receiver import Receiver
from triptych_spdy._stream import Stream
from triptych_spdy.errors import FlowControlError, ProtocolError, StateError, TooManyStreams

Buffer = bytes | bytearray | memoryview


class Role(enum.Enum):
    """Which end this is: clients open odd streams, servers even ones."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may cost.

    :param streams: open at once by the peer; more are refused.
    :param headers: values in one block.
    :param header_bytes: of one block, inflated.
    :param control_bytes: of one control frame, as sent.
    :param stream_faults: frames for streams that do not exist, or such, before the connection ends.
    :param receive_window: bytes per stream and session, with flow control on.
    """

    streams: int = 1000
    headers: int = 1000
    header_bytes: int = 1 << 18
    control_bytes: int = 1 << 18
    stream_faults: int = 1000
    receive_window: int = INITIAL_WINDOW


class Connection:
    """The protocol state of one connection; feed it bytes, ask it for bytes.

    :param flow_control: obey and grant windows as SPDY/3.1 says. Kubernetes' peers neither send
        WINDOW_UPDATE nor heed it, so with them this must stay off; updates are then only reported.
    """

    def __init__(self, role: Role, limits: Limits | None = None, *, flow_control: bool = False) -> None:
        self.role = role
        self.limits = limits or Limits()
        self._out: list[Buffer] = []
        self._streams: dict[int, Stream] = {}
        self._flow = FlowControl(self.limits.receive_window) if flow_control else None
        self._compressor = HeaderCompressor()
        self._receiver = Receiver(self, self._streams, self._flow, self._out)
        self._next_stream = 1 if role is Role.CLIENT else 2
        self._next_ping = self._next_stream
        self._closed = False

    # Receiving

    def receive_data(self, data: Buffer) -> list[Event]:
        """Take bytes from the peer and report what they mean, in order.

        :raises ProtocolError: the connection is beyond repair; a GOAWAY waits to be sent. What was
            understood before the fault is in the error's `events`.
        """
        if self._closed:
            return []
        events: list[Event] = []
        try:
            self._receiver.receive(data, events)
        except ProtocolError as error:
            error.events = tuple(events)
            self.goaway(error.status)
            self._closed = True
            raise
        return events

    # Sending

    def data_to_send(self) -> bytes:
        """Take all bytes that wait for the transport."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def buffers_to_send(self) -> list[Buffer]:
        """`data_to_send` without joining, for sendmsg(2)."""
        buffers = self._out.copy()
        self._out.clear()
        return buffers

    def open_stream(
        self,
        headers: Iterable[HeaderValue],
        *,
        fin: bool = False,
        unidirectional: bool = False,
        priority: int = 0,
        associated: int = 0,
    ) -> int:
        """Open a stream; the peer accepts it by `StreamReplied` or refuses it by `StreamReset`.

        :param fin: half-close it at once.
        :param unidirectional: the peer will send nothing back.
        :param priority: 0 (highest) to 7.
        :returns: its number.
        :raises TooManyStreams: above the peer's limit, or numbers are used up.
        :raises StateError: after GOAWAY in either direction.
        """
        self._check_open()
        if self._receiver.goaway_received:
            raise StateError("the peer takes no more streams (GOAWAY)")
        stream_id = self._next_stream
        if stream_id > MAX_STREAM_ID:
            raise TooManyStreams("all stream numbers of this connection are used")
        limit = self._receiver.peer_max_streams
        if limit is not None and sum(self._is_own(each) for each in self._streams) >= limit:
            raise TooManyStreams(f"the peer allows {limit} streams at once")
        if not 0 <= priority <= 7:
            raise StateError(f"priority {priority} is not in 0..7")
        block = self._compressor.compress(_block(headers))
        self._next_stream += 2
        flags = (ControlFlag.FIN if fin else 0) | (ControlFlag.UNIDIRECTIONAL if unidirectional else 0)
        syn = frames.SynStream(stream_id, associated, priority, 0, block)
        self._out.append(frames.syn_stream(syn, flags))
        stream = Stream(stream_id, send_window=self._flow.initial_send if self._flow else INITIAL_WINDOW)
        stream.local_closed = fin
        stream.remote_closed = unidirectional
        if not stream.closed:
            self._streams[stream_id] = stream
        return stream_id

    def reply(self, stream_id: int, headers: Iterable[HeaderValue] = (), *, fin: bool = False) -> None:
        """Accept a stream that the peer opened. Must come before any data on it.

        :raises StateError: not a stream of the peer, unidirectional, or replied already.
        """
        stream = self._sendable(stream_id)
        if self._is_own(stream_id) or stream.replied:
            raise StateError(f"stream {stream_id} needs no reply")
        stream.replied = True
        self._send_block(FrameType.SYN_REPLY, stream, headers, fin)

    def send_headers(self, stream_id: int, headers: Iterable[HeaderValue], *, fin: bool = False) -> None:
        """Send more headers on an open stream."""
        self._send_block(FrameType.HEADERS, self._writable(stream_id), headers, fin)

    def send_data(self, stream_id: int, data: Buffer, *, fin: bool = False) -> None:
        """Queue one DATA frame; `data` is kept by reference until it is taken."""
        self._out.append(self.data_head(stream_id, len(data), fin=fin))
        if len(data):
            self._out.append(data)

    def data_head(self, stream_id: int, length: int, *, fin: bool = False) -> bytes:
        """The head of a DATA frame whose `length` bytes the caller writes itself, right behind the head.

        The fast path for bulk data: take `data_to_send` first, then write head and payload in one call.

        :raises StateError: the stream cannot send.
        :raises FlowControlError: beyond the window; see `send_window`.
        """
        stream = self._writable(stream_id)
        if self._flow is not None:
            room = self._flow.room(stream)
            if length > max(room, 0):
                raise FlowControlError(f"{length} bytes on stream {stream_id}, the window has {room}")
            self._flow.sent(stream, length)
        head = frames.data_head(stream_id, length, FLAG_FIN if fin else 0)
        if fin:
            self._close_local(stream)
        return head

    def send_window(self, stream_id: int) -> int:
        """Bytes that may be sent on the stream now; without flow control the largest frame."""
        stream = self._writable(stream_id)
        return MAX_LENGTH if self._flow is None else max(0, self._flow.room(stream))

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Tell that `size` received bytes were used up, so that the peer may send as many more."""
        if self._flow is None or not size:
            return
        stream = self._streams.get(stream_id)
        session, delta = self._flow.acknowledge(stream, size)
        if session:
            self._out.append(frames.word_pair(FrameType.WINDOW_UPDATE, frames.WordPair(0, session)))
        if delta and stream is not None and not stream.remote_closed:
            self._out.append(frames.word_pair(FrameType.WINDOW_UPDATE, frames.WordPair(stream_id, delta)))

    def end_stream(self, stream_id: int) -> None:
        """Half-close: an empty DATA frame with FIN. Nothing happens when this end has closed before."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.local_closed:
            self._out.append(self.data_head(stream_id, 0, fin=True))

    def reset_stream(self, stream_id: int, status: ResetStatus = ResetStatus.CANCEL) -> None:
        """Drop a stream in both directions. Nothing happens when it is gone."""
        if self._streams.pop(stream_id, None) is not None:
            self._out.append(frames.word_pair(FrameType.RST_STREAM, frames.WordPair(stream_id, status)))

    def send_settings(self, entries: Sequence[frames.Setting], *, clear: bool = False) -> None:
        """Send SETTINGS."""
        self._out.append(frames.settings(entries, ControlFlag.CLEAR_SETTINGS if clear else 0))

    def ping(self) -> int:
        """Send a ping; `PingAcknowledged` with the number returned here is the answer."""
        self._check_open()
        ping_id = self._next_ping
        self._next_ping = ping_id + 2 if ping_id + 2 <= 0xFFFF_FFFF else 2 - ping_id % 2
        self._receiver.pings.add(ping_id)
        self._out.append(frames.ping(ping_id))
        return ping_id

    def goaway(self, status: GoAwayStatus = GoAwayStatus.OK) -> None:
        """Say that no new streams are taken; those that are open go on. A second call does nothing."""
        if not self._receiver.goaway_sent:
            self._receiver.goaway_sent = True
            last = frames.WordPair(self._receiver.last_peer_stream, status)
            self._out.append(frames.word_pair(FrameType.GOAWAY, last))

    # State

    @property
    def open_streams(self) -> tuple[int, ...]:
        """Streams that are open in at least one direction."""
        return tuple(self._streams)

    def is_open(self, stream_id: int) -> bool:
        """Whether the stream is open in at least one direction: a reset may follow in the same batch."""
        return stream_id in self._streams

    def can_send(self, stream_id: int) -> bool:
        """Whether data may be sent on the stream: it lives, was replied to, and is not half-closed here."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.local_closed and (stream.replied or self._is_own(stream_id))

    def _is_own(self, stream_id: int) -> bool:
        return stream_id % 2 == self._next_stream % 2

    def _check_open(self) -> None:
        if self._closed or self._receiver.goaway_sent:
            raise StateError("this end has sent GOAWAY")

    def _sendable(self, stream_id: int) -> Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            raise StateError(f"stream {stream_id} is not open")
        if stream.local_closed:
            raise StateError(f"stream {stream_id} is closed for sending")
        return stream

    def _writable(self, stream_id: int) -> Stream:
        stream = self._sendable(stream_id)
        if not stream.replied and not self._is_own(stream_id):
            raise StateError(f"stream {stream_id} was not replied to yet")
        return stream

    def _send_block(
        self, kind: FrameType, stream: Stream, headers: Iterable[HeaderValue], fin: bool
    ) -> None:
        block = self._compressor.compress(_block(headers))
        body = frames.StreamBlock(stream.stream_id, block)
        self._out.append(frames.stream_block(kind, body, ControlFlag.FIN if fin else 0))
        if fin:
            self._close_local(stream)

    def _close_local(self, stream: Stream) -> None:
        stream.local_closed = True
        if stream.remote_closed:
            self._streams.pop(stream.stream_id, None)


def _block(headers: Iterable[HeaderValue]) -> bytes:
    try:
        return encode_block(headers)
    except ValueError as error:
        raise StateError(str(error)) from error
