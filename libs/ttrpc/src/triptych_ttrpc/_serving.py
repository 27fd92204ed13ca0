"""Requests of the peer: each is handled in a task of its own, of a bounded number."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message
from triptych_errors import Code, TriptychError

from triptych_ttrpc._connection import Connection
from triptych_ttrpc._events import RequestReceived
from triptych_ttrpc._wire import Wire
from triptych_ttrpc.errors import ConnectionClosed, ProtocolError

log = logging.getLogger(__name__)

Handler = Callable[[Any], Awaitable[Message]]
Handlers = Mapping[str, tuple[type[Message], Handler]]
"""By the method's name: the type of its request, and the function that answers it."""

MAX_TASKS = 64
"""Requests that are handled at once. Each answer is two frames at most; 256 may wait at Go's reader."""
MAX_HELD = 16 << 20
"""Bytes of requests that are handled at once."""
MAX_REFUSED = 64
"""Requests that are refused while the peer does not read the answers to others."""


class Server:
    """The services of this end, and the tasks that work for them."""

    def __init__(self, connection: Connection, wire: Wire) -> None:
        self._connection = connection
        self._wire = wire
        self._services: dict[str, Handlers] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = 0
        self._refused = 0

    def serve(self, service: str, handlers: Handlers) -> None:
        self._services[service] = handlers

    def take(self, request: RequestReceived) -> None:
        """Begin to handle a request, or refuse it.

        :raises ProtocolError: as `refuse` does.
        """
        service = self._services.get(request.service)
        found = service.get(request.method) if service is not None else None
        size = len(request.payload)
        if service is None:
            self.refuse(request.stream_id, Code.UNIMPLEMENTED, f"no service {request.service}")
        elif found is None:
            said = f"no method {request.method} in service {request.service}"
            self.refuse(request.stream_id, Code.UNIMPLEMENTED, said)
        elif len(self._tasks) >= MAX_TASKS or self._held + size > MAX_HELD:
            self.refuse(request.stream_id, Code.RESOURCE_EXHAUSTED, "too many requests at once")
        else:
            task = asyncio.create_task(self._handle(request, *found), name=f"ttrpc {request.method}")
            self._tasks.add(task)
            self._held += size
            task.add_done_callback(lambda task: self._forget(task, size))

    def refuse(self, stream_id: int, code: Code, message: str) -> None:
        """Answer with an error.

        :raises ProtocolError: the peer asks and asks, and does not read what it gets.
        """
        self._refused = self._refused + 1 if self._wire.congested else 0
        if self._refused > MAX_REFUSED:
            raise ProtocolError("the peer sends requests and reads no answers")
        self._wire.send(self._connection.status(stream_id, code, message))

    def cancel(self) -> None:
        """Cancel all handlers: nobody awaits their answers."""
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait until all handlers ended, but for one that calls this."""
        others = self._tasks - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def _forget(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.discard(task)
        self._held -= size

    async def _handle(self, request: RequestReceived, kind: type[Message], handler: Handler) -> None:
        answer = await self._outcome(request, kind, handler)
        with contextlib.suppress(ConnectionClosed):
            async with self._wire.turn():
                self._wire.send(answer)

    async def _outcome(self, request: RequestReceived, kind: type[Message], handler: Handler) -> bytes:
        """The bytes of the answer, be it a message or an error."""

        def status(code: Code, message: str) -> bytes:
            return self._connection.status(request.stream_id, code, message)

        try:
            message = kind.FromString(request.payload)
        except DecodeError as error:
            return status(Code.INVALID_ARGUMENT, f"the payload is no {kind.__name__}: {error}")
        limit = asyncio.timeout(request.timeout_nano / 1e9 if request.timeout_nano else None)
        try:
            async with limit:
                response = await handler(message)
            return self._connection.response(request.stream_id, response.SerializeToString())
        except TriptychError as error:
            return status(error.code, str(error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return status(Code.CANCELLED, f"{request.method} was cancelled")
        except Exception as error:
            if limit.expired():
                return status(Code.DEADLINE_EXCEEDED, f"{request.method} took longer than the caller waits")
            log.exception("ttrpc: %s of %s failed", request.method, request.service)
            return status(Code.UNKNOWN, str(error) or type(error).__name__)
