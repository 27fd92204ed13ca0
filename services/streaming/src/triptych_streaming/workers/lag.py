"""How long a client has read nothing of what waits for it."""

from __future__ import annotations

from triptych_streaming.server.wire import Wire


class LagClock:
    """Runs while the client is behind, and begins anew whenever it has read something.

    That the wire is writable again comes late: the kernel tells it when the client has read a third of its
    buffer, a megabyte, and a slow client may need minutes for that.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._since: float | None = None
        self._unread = 0

    def start(self, now: float) -> None:
        """The client is behind from now on, unless it was before."""
        if self._since is None:
            self._since, self._unread = now, self._wire.unread

    def stop(self) -> None:
        """The client has caught up."""
        self._since = None

    def seconds(self, now: float) -> float:
        """For how long it has read nothing, as far as earlier calls have seen; 0 when it is not behind."""
        if self._since is None:
            return 0.0
        unread = self._wire.unread
        if unread < self._unread:
            self._since, self._unread = now, unread
        return now - self._since
