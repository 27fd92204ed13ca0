"""Flow control (section 2.6.8, with the session window that SPDY/3.1 added as stream 0)."""

from __future__ import annotations

from triptych_spdy._constants import INITIAL_WINDOW, MAX_WINDOW
from triptych_spdy._stream import Stream


class FlowControl:
    """Windows of one connection in both directions.

    Received bytes count against the window from their arrival until the application acknowledges them;
    room is given back in steps of half a window, so that small reads do not cost a frame each.
    """

    __slots__ = ("initial_send", "receive_window", "send_window", "unacknowledged", "unread")

    def __init__(self, receive_window: int = INITIAL_WINDOW) -> None:
        self.receive_window = receive_window
        self.initial_send = INITIAL_WINDOW
        self.send_window = INITIAL_WINDOW
        self.unread = 0
        self.unacknowledged = 0

    def room(self, stream: Stream) -> int:
        """Bytes that may be sent now on `stream`; below 0 after the peer shrank its window."""
        return min(stream.send_window, self.send_window)

    def sent(self, stream: Stream, size: int) -> None:
        stream.send_window -= size
        self.send_window -= size

    def arrived(self, stream: Stream | None, size: int) -> tuple[bool, bool]:
        """Count payload that came in; tells whether the session and the stream are still within bounds."""
        self.unread += size
        if stream is None:
            return self.unread <= self.receive_window, True
        stream.unread += size
        return self.unread <= self.receive_window, stream.unread <= self.receive_window

    def acknowledge(self, stream: Stream | None, size: int) -> tuple[int, int]:
        """Give room back; returns the deltas to announce for session and stream (0: none yet)."""
        half = self.receive_window // 2
        self.unacknowledged += size
        session = stream_delta = 0
        if self.unacknowledged >= half:
            session, self.unacknowledged = self.unacknowledged, 0
            self.unread -= session
        if stream is not None:
            stream.received += size
            if stream.received >= half:
                stream_delta, stream.received = stream.received, 0
                stream.unread -= stream_delta
        return session, stream_delta

    def widen(self, stream: Stream | None, delta: int) -> bool:
        """Apply the peer's WINDOW_UPDATE; False when the window would pass 2^31 - 1."""
        if stream is None:
            self.send_window += delta
            return self.send_window <= MAX_WINDOW
        stream.send_window += delta
        return stream.send_window <= MAX_WINDOW
