"""Fan-out of container events to every client of GetContainerEvents.

Events reach each client in the order in which they were published, and none is lost while it is
connected. A client that does not read does not slow anybody: its events wait in a queue of its own,
and when that is full its stream is ended with RESOURCE_EXHAUSTED instead of losing events unseen.

There is no replay. The CRI gives a client no way to say what it has seen, and a kubelet lists all
containers when it (re)connects; an old event after that list would only turn its cache back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator

from runtime.v1.api_pb2 import ContainerEventResponse
from triptych_errors import ResourceExhausted

MAX_EVENTS = 100_000
MAX_BYTES = 64 << 20


class SlowSubscriber(ResourceExhausted):
    """The client did not read its events in time; it must list and subscribe again."""


class EventBus:
    """Publishes events to subscribers. For use on the event loop only.

    :param max_events: how many events may wait for one client.
    :param max_bytes: how many bytes of events may wait for one client.
    """

    def __init__(self, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._subscriptions: set[Subscription] = set()
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._closed = False
        self._last = 0

    @property
    def watched(self) -> bool:
        """Whether anybody listens; an event nobody hears need not be built."""
        return bool(self._subscriptions)

    def publish(self, event: ContainerEventResponse) -> None:
        """Hand an event to every subscriber; never waits.

        The message is shared and must not be changed afterwards. Its `created_at` is raised where the
        wall clock went backwards, so that times have the order of the events.
        """
        if not self._subscriptions:
            return
        self._last = max(self._last, event.created_at)
        event.created_at = self._last
        size = event.ByteSize()
        for subscription in tuple(self._subscriptions):
            subscription._push(event, size)

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Everything that is published from now on; iterate the subscription asynchronously."""
        subscription = Subscription(self._max_events, self._max_bytes)
        if self._closed:
            subscription._end(None)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End all subscriptions after the events that they still hold; the daemon stops."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription._end(None)


class Subscription:
    """The events of one client: an asynchronous iterator, ended by `EventBus.close`.

    :raises SlowSubscriber: out of the iteration, when too much waited for the client.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._waiting: deque[tuple[ContainerEventResponse, int]] = deque()
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._news = asyncio.Event()
        self._ended = False
        self._error: SlowSubscriber | None = None

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ContainerEventResponse:
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        event, size = self._waiting.popleft()
        self._bytes -= size
        return event

    def _push(self, event: ContainerEventResponse, size: int) -> None:
        if self._ended:
            return
        if len(self._waiting) >= self._max_events or self._bytes + size > self._max_bytes:
            count = len(self._waiting)
            self._waiting.clear()
            self._end(SlowSubscriber(f"the client did not read {count} container events; subscribe again"))
            return
        self._waiting.append((event, size))
        self._bytes += size
        self._news.set()

    def _end(self, error: SlowSubscriber | None) -> None:
        self._ended = True
        self._error = error
        self._news.set()
