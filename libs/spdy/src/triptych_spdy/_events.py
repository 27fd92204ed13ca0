"""What `Connection.receive_data` reports."""

from __future__ import annotations

from dataclasses import dataclass

from triptych_spdy._frames import Setting
from triptych_spdy._headers import Headers


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream; answer with `Connection.reply` or `Connection.reset_stream`.

    :param unidirectional: the peer expects nothing back: no reply may be sent.
    """

    stream_id: int
    headers: Headers
    associated: int = 0
    priority: int = 0
    slot: int = 0
    unidirectional: bool = False


@dataclass(frozen=True, slots=True)
class StreamReplied:
    """The peer accepted a stream that this end opened."""

    stream_id: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """More headers on an open stream."""

    stream_id: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Payload. Large frames arrive in pieces.

    :param data: a view into what was given to `receive_data`: use or copy it before that buffer changes.
    """

    stream_id: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer half-closed: it sends no more on this stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The stream is gone in both directions.

    :param status: a `ResetStatus`, or an unknown number as sent.
    :param remote: whether the peer sent it; else this end found a fault of the peer on that stream.
    :param reason: for logs, when this end found the fault.
    """

    stream_id: int
    status: int
    remote: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer's settings; `clear` asks to forget those that were persisted."""

    settings: tuple[Setting, ...]
    clear: bool = False


@dataclass(frozen=True, slots=True)
class PingReceived:
    """The peer pinged; the answer is already waiting to be sent."""

    ping_id: int


@dataclass(frozen=True, slots=True)
class PingAcknowledged:
    """The peer answered one of this end's pings."""

    ping_id: int


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """The peer takes no more streams; those above `last_good` were not acted upon."""

    last_good: int
    status: int


@dataclass(frozen=True, slots=True)
class WindowUpdated:
    """The peer has room for `delta` more bytes; stream 0 is the session's window."""

    stream_id: int
    delta: int


Event = (
    StreamOpened
    | StreamReplied
    | HeadersReceived
    | DataReceived
    | StreamEnded
    | StreamReset
    | SettingsReceived
    | PingReceived
    | PingAcknowledged
    | GoAwayReceived
    | WindowUpdated
)
