"""A response and its body, read in whatever way is cheapest."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import h11

from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http.connection import Connection, Head, broken
from triptych_image.registry.http.origin import Origin

if TYPE_CHECKING:
    from triptych_image.registry.http.pool import Pool

_DRAIN: Final = 16 << 10
_DRAIN_SECONDS: Final = 0.5
_READ: Final = 64 << 10
_MAX_RETRY_AFTER: Final = 86400.0


class Response:
    """The answer to a request; leave it as a context manager to give the connection back.

    :ivar url: where it finally came from, after redirects.
    """

    def __init__(
        self, connection: Connection, head: Head, method: str, origin: Origin, url: str, pool: Pool
    ) -> None:
        self.head = head
        self.status = head.status
        self.origin = origin
        self.url = url
        self._connection = connection
        self._pool = pool
        self._leftover = memoryview(b"")
        self._chunked = False
        self._left: int | None = None
        self._done = False
        self._frame(method)

    def _frame(self, method: str) -> None:
        """Find out how the body ends (RFC 9112, section 6.3)."""
        if method == "HEAD" or self.status in (204, 304):
            self._done = True
        elif self.head.get(b"transfer-encoding"):
            self._chunked = True
        else:
            # h11 checked the header: at most one value, digits only.
            length = self.head.get(b"content-length")
            self._left = int(length) if length else None
            self._leftover = memoryview(self._connection.protocol.trailing_data[0])
            self._done = self._left == 0

    @property
    def host(self) -> str:
        """Who answered, for errors."""
        return self._connection.host

    @property
    def left(self) -> int | None:
        """Bytes of the body still to come, when the server told."""
        return self._left

    @property
    def delimited(self) -> bool:
        """Whether the body tells where it ends; else it ends with the connection, broken or not."""
        return self._chunked or self._left is not None

    @property
    def done(self) -> bool:
        """Whether the body was read to its end."""
        return self._done

    @property
    def retry_after(self) -> float | None:
        """What Retry-After says, in seconds from now."""
        text = self.head.get(b"retry-after").strip()
        if not text:
            return None
        if text.isdecimal():
            return min(float(text[:9]), _MAX_RETRY_AFTER)
        import email.utils  # dates are rare here, and the package costs memory

        try:
            when = email.utils.parsedate_to_datetime(text).timestamp()
        except ValueError:
            return None
        return min(max(0.0, when - time.time()), _MAX_RETRY_AFTER)

    def fail(self, error: BaseException) -> None:
        """Break off whatever read is under way."""
        self._connection.stream.fail(error)

    @property
    def waited(self) -> float:
        """Seconds spent waiting for the peer so far on this connection."""
        return self._connection.stream.waited

    @property
    def received(self) -> int:
        """Bytes read so far on this connection."""
        return self._connection.stream.received

    def nudge(self) -> None:
        """Take in what is there even if it is little, so that progress is seen."""
        self._connection.stream.nudge()

    async def read_into(self, view: memoryview) -> int:
        """Read some of the body, at least a byte; 0 at its end.

        :raises AttemptFailed: BROKEN when it ends early.
        """
        if self._done:
            return 0
        try:
            count = await (self._read_chunked(view) if self._chunked else self._read_plain(view))
        except OSError as error:
            raise broken(self.host, error) from None
        except h11.RemoteProtocolError as error:
            raise AttemptFailed(Failure.BROKEN, self.host, f"body broke off: {error}") from None
        return count

    async def fill(self, view: memoryview) -> int:
        """Fill the view as far as data is there, waiting for at least a byte; 0 at the end.

        What was read along with the head comes alone, so that the rest may be spliced.
        """
        ahead = bool(self._leftover)
        count = await self.read_into(view)
        if not self._chunked and not ahead:
            while 0 < count < len(view) and not self._done:
                try:
                    more = self._connection.stream.read_more(self._clip(view[count:]))
                except OSError:
                    break
                if not more:
                    break
                self._advance(more)
                count += more
        return count

    @property
    def spliceable(self) -> bool:
        """Whether `splice_some` works: a plain socket, a known length, nothing read ahead."""
        return (
            self._left is not None
            and not self._done
            and not self._leftover
            and not self._connection.stream.tls
        )

    async def splice_some(self, pipe: int, most: int) -> int:
        """Move some of the body into a pipe inside the kernel.

        :raises BrokenPipeError: when the pipe's reader is gone.
        """
        assert self._left is not None
        stream = self._connection.stream
        most = min(most, self._left)
        stream.expect(most)
        try:
            count = await stream.splice_some(pipe, most)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise broken(self.host, error) from None
        if not count:
            raise self._early()
        self._advance(count)
        return count

    async def read(self, limit: int, what: str) -> bytes:
        """The whole body.

        :param what: names it in the error.
        :raises AttemptFailed: TOO_LARGE above the limit, else as `read_into`.
        """
        if self._left is not None and self._left > limit:
            raise self._too_large(limit, what)
        data = bytearray()
        buffer = memoryview(bytearray(min(_READ, limit + 1)))
        while count := await self.read_into(buffer):
            data += buffer[:count]
            if len(data) > limit:
                raise self._too_large(limit, what)
        return bytes(data)

    async def peek(self, limit: int) -> bytes:
        """At most the first bytes of the body, for error messages; never fails."""
        data = bytearray()
        buffer = memoryview(bytearray(limit))
        try:
            async with asyncio.timeout(_DRAIN_SECONDS * 4):
                while len(data) < limit and (count := await self.read_into(buffer[: limit - len(data)])):
                    data += buffer[:count]
        except (AttemptFailed, TimeoutError):
            pass
        return bytes(data)

    async def close(self) -> None:
        """Give the connection back, or close it when more than a little of the body is left."""
        if not self._done and self.head.keep_alive and self._left is not None and self._left <= _DRAIN:
            await self.peek(_DRAIN)
        if self._done and self.head.keep_alive and self._exhausted():
            self._pool.give_back(self._connection)
        else:
            self.abandon()

    def _exhausted(self) -> bool:
        protocol = self._connection.protocol
        return not self._leftover and (not self._chunked or not protocol.trailing_data[0])

    def abandon(self) -> None:
        """Close the connection."""
        self._pool.drop(self._connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                await self.close()
            except BaseException:
                self.abandon()
                raise
        else:
            self.abandon()

    def _clip(self, view: memoryview) -> memoryview:
        return view if self._left is None else view[: self._left]

    async def _read_plain(self, view: memoryview) -> int:
        view = self._clip(view)
        if self._leftover:
            count = min(len(view), len(self._leftover))
            view[:count] = self._leftover[:count]
            self._leftover = self._leftover[count:]
        else:
            stream = self._connection.stream
            stream.expect(len(view) if self._left is not None else 1)
            count = await stream.read_into(view)
            if not count:
                if self._left is not None:
                    raise self._early()
                self._done = True
                self.head.keep_alive = False
                return 0
        self._advance(count)
        return count

    def _advance(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
            if not self._left:
                self._done = True
                # The next exchange starts with a few bytes, not with a bulk.
                self._connection.stream.expect(1)

    async def _read_chunked(self, view: memoryview) -> int:
        if self._leftover:
            count = min(len(view), len(self._leftover))
            view[:count] = self._leftover[:count]
            self._leftover = self._leftover[count:]
            return count
        protocol, stream = self._connection.protocol, self._connection.stream
        buffer: memoryview | None = None
        while True:
            event = protocol.next_event()
            if isinstance(event, h11.Data):
                data = memoryview(bytes(event.data))
                count = min(len(view), len(data))
                view[:count] = data[:count]
                self._leftover = data[count:]
                return count
            if event is h11.NEED_DATA:
                buffer = buffer or memoryview(bytearray(_READ))
                received = await stream.read_into(buffer)
                protocol.receive_data(bytes(buffer[:received]))
            elif isinstance(event, h11.EndOfMessage):
                self._done = True
                return 0
            else:
                raise self._early()

    def _early(self) -> AttemptFailed:
        return AttemptFailed(Failure.BROKEN, self.host, "connection closed in the middle of the body")

    def _too_large(self, limit: int, what: str) -> AttemptFailed:
        size = f"{self._left} bytes, " if self._left is not None else ""
        return AttemptFailed(
            Failure.TOO_LARGE, self.host, f"{what}: {size}more than the limit of {limit} bytes"
        )
