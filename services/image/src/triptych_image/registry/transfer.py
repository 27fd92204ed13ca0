"""A blob into a sink: over one connection, and over several in ranges where one is slow."""

from __future__ import annotations

import asyncio
import enum
import time
from dataclasses import dataclass, field
from typing import Final

from triptych_errors import TriptychError

from triptych_image.registry.blobs import BlobSource, Download
from triptych_image.registry.http import Response
from triptych_image.registry.sinks import BufferSink, Sink
from triptych_image.registry.types import Progress

_PROBE_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.002
# Share of the time that must be waits for the network: else the consumer is what is slow.
_NETWORK_BOUND: Final = 0.5


class Turn:
    """Lets others run now and then: where data is always there, nothing else gives the loop a chance."""

    __slots__ = ("_clock", "_until")

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._until = self._clock() + _TURN_SECONDS

    async def pause(self) -> None:
        """Give way when the turn is over."""
        if self._clock() >= self._until:
            await asyncio.sleep(0)
            self._until = self._clock() + _TURN_SECONDS


class _State(enum.Enum):
    PENDING = enum.auto()
    AHEAD = enum.auto()
    TAKEN = enum.auto()


@dataclass(slots=True)
class _Segment:
    """A range; AHEAD when a worker brings it into memory before its turn."""

    start: int
    end: int
    state: _State = _State.PENDING
    ready: asyncio.Future[memoryview | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    delivered: asyncio.Event = field(default_factory=asyncio.Event)


class Transfer:
    """Moves a blob from `offset` on into a sink, in order.

    It starts with one connection. When that one is slow for a second, the network being the reason and the
    host serving ranges, workers bring the ranges that follow into memory (one each, so the memory is
    bounded) while the first connection goes on to the first range's start.

    :param memory: permits for ranges in memory, shared by all transfers. A range without a permit is
        streamed when its turn comes, so permits are never waited for.
    """

    def __init__(
        self,
        source: BlobSource,
        sink: Sink,
        memory: asyncio.Semaphore,
        *,
        offset: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._memory = memory
        self._offset = offset
        self._progress = progress
        self._segments: list[_Segment] = []
        self._workers: list[asyncio.Task[None]] = []
        self._ranges = True
        self._probed = time.monotonic()
        self._probe_bytes = 0
        self._probe_waited = 0.0

    async def run(self) -> None:
        """Move it to its end.

        :raises TriptychError: when no host is left, or the sink closed.
        """
        failure: TriptychError | None = None
        async with asyncio.TaskGroup() as group:
            try:
                await self._stream(self._offset, self._source.size, group)
                await self._deliver()
            except TriptychError as error:
                failure = error
            finally:
                for worker in self._workers:
                    worker.cancel()
        if failure is not None:
            raise failure

    async def _stream(self, start: int, end: int, group: asyncio.TaskGroup | None = None) -> None:
        """Move a part straight into the sink; given a group it may split what is left."""
        download = Download(self._source, start, end)

        async def pump(response: Response) -> None:
            self._probe(response)
            turn = Turn()
            while download.position < download.end:
                await turn.pause()
                count = await self._sink.take(response, download.end - download.position)
                if not count:
                    return
                download.advance(count)
                self._count(count)
                if group is not None and not self._segments and self._is_slow(response, download):
                    download.end = self._split(download.position, group)

        await download.run(pump)

    def _count(self, count: int) -> None:
        self._probe_bytes += count
        if self._progress is not None:
            self._progress(count)

    def _probe(self, response: Response) -> None:
        self._probed, self._probe_bytes = time.monotonic(), 0
        self._probe_waited = response.waited

    def _is_slow(self, response: Response, download: Download) -> bool:
        elapsed = time.monotonic() - self._probed
        if elapsed < _PROBE_SECONDS:
            return False
        settings = self._source.settings
        waited = response.waited - self._probe_waited
        slow = self._probe_bytes / elapsed < settings.parallel_below_bytes_per_second
        self._probe(response)
        return (
            slow
            and waited / elapsed > _NETWORK_BOUND
            and self._source.ranges
            and settings.parallel_chunks > 1
            and download.end - download.position >= 3 * settings.chunk_bytes
        )

    def _split(self, position: int, group: asyncio.TaskGroup) -> int:
        """Cut what follows into ranges; returns where the first of them starts."""
        chunk, size = self._source.settings.chunk_bytes, self._source.size
        first = position + chunk
        self._segments = [_Segment(start, min(start + chunk, size)) for start in range(first, size, chunk)]
        count = min(self._source.settings.parallel_chunks - 1, len(self._segments))
        self._workers = [group.create_task(self._work()) for _ in range(count)]
        return first

    async def _work(self) -> None:
        """Bring ranges into memory, one at a time, each held until it was delivered."""
        while self._ranges:
            async with self._memory:
                segment = next((one for one in self._segments if one.state is _State.PENDING), None)
                if segment is None:
                    return
                segment.state = _State.AHEAD
                await self._fetch_ahead(segment)
                await segment.delivered.wait()

    async def _fetch_ahead(self, segment: _Segment) -> None:
        download = Download(self._source, segment.start, segment.end, strict=True)
        buffer = BufferSink(segment.end - segment.start)

        async def pump(response: Response) -> None:
            turn = Turn()
            while download.position < download.end:
                await turn.pause()
                count = await buffer.take(response, download.end - download.position)
                if not count:
                    return
                download.advance(count)

        try:
            await download.run(pump)
        except TriptychError:
            # Its turn will come: then it is streamed, and fails for good if it must.
            self._ranges = False
            segment.ready.set_result(None)
        else:
            segment.ready.set_result(buffer.view)

    async def _deliver(self) -> None:
        """The ranges in order: from memory, or straight from the network when nobody has begun them."""
        for index, segment in enumerate(self._segments):
            if segment.state is _State.PENDING and not self._ranges:
                await self._stream_rest(index)
                return
            data: memoryview | None = None
            if segment.state is _State.PENDING:
                segment.state = _State.TAKEN
            else:
                data = await segment.ready
            if data is None:
                await self._stream(segment.start, segment.end)
            else:
                await self._sink.put(data)
                self._count(len(data))
                # The future would keep its bytes for as long as the list of ranges lives.
                segment.ready = asyncio.get_running_loop().create_future()
            del data
            segment.delivered.set()

    async def _stream_rest(self, index: int) -> None:
        """Ranges do not work: everything that nobody has yet over one connection."""
        for segment in self._segments[index:]:
            if segment.state is _State.PENDING:
                segment.state = _State.TAKEN
        await self._stream(self._segments[index].start, self._source.size)
