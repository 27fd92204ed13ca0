"""Breaking off bodies that trickle."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http import Response
from triptych_image.registry.settings import RegistrySettings

_TICK: Final = 1.0


class StallGuard:
    """While entered, fails a response that brings too little in the time that is spent waiting for it.

    Time in which the consumer is slow, so nobody waits for the network, does not count.
    """

    def __init__(self, response: Response, settings: RegistrySettings) -> None:
        self._response = response
        self._seconds = settings.stall_seconds
        self._rate = settings.min_bytes_per_second
        self._interval = min(_TICK, self._seconds / 4)
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._waited, self._received = self._response.waited, self._response.received

    def __enter__(self) -> Self:
        self._schedule()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)

    def _tick(self) -> None:
        waited = self._response.waited - self._waited
        if waited >= self._seconds:
            received = self._response.received - self._received
            if received < max(1.0, self._rate * waited):
                reason = f"stalled: {received} bytes in {waited:.0f} s"
                self._response.fail(AttemptFailed(Failure.STALLED, self._response.host, reason))
                return
            self._begin()
        self._response.nudge()
        self._schedule()
