"""State of one stream (section 2.3): two halves that close apart, and its windows."""

from __future__ import annotations

from triptych_spdy._constants import INITIAL_WINDOW


class Stream:
    """A stream that is open in at least one direction.

    :ivar replied: SYN_REPLY was sent or received (whichever this stream needs), so data may flow back.
    :ivar unread: bytes that arrived and count against the receive window (flow control).
    :ivar received: bytes acknowledged since the last WINDOW_UPDATE (flow control).
    """

    __slots__ = (
        "local_closed",
        "received",
        "remote_closed",
        "replied",
        "send_window",
        "stream_id",
        "unread",
    )

    def __init__(self, stream_id: int, *, send_window: int = INITIAL_WINDOW) -> None:
        self.stream_id = stream_id
        self.local_closed = False
        self.remote_closed = False
        self.replied = False
        self.send_window = send_window
        self.unread = 0
        self.received = 0

    @property
    def closed(self) -> bool:
        return self.local_closed and self.remote_closed
