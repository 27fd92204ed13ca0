"""How long what is asked to end has for it."""

from __future__ import annotations

import time


class Grace:
    """A time that begins when its owner was told to end, which may be later than the request.

    :param seconds: how long it is; 0 for one that is told nothing and killed at once.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end: float | None = None

    def begin(self) -> None:
        """It was told."""
        self._end = time.monotonic() + self._seconds

    def shorten(self, seconds: float) -> bool:
        """Take a later request's grace, if it ends earlier; whether it does.

        Before the beginning the lengths are compared, after it a new grace counts from now on.
        """
        if seconds >= self.left():
            return False
        self._seconds = seconds
        if self._end is not None:
            self.begin()
        return True

    def left(self) -> float:
        """Seconds that are left, all of them before the beginning; negative when it is over."""
        return self._seconds if self._end is None else self._end - time.monotonic()
