"""One end of the protocol over a socket, driven by asyncio."""

from __future__ import annotations

import asyncio
import socket
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from triptych_ttrpc._connection import Connection, Role
from triptych_ttrpc._events import RequestReceived, RequestRefused, ResponseReceived
from triptych_ttrpc._serving import Handlers, Server
from triptych_ttrpc._wire import Wire
from triptych_ttrpc.errors import CallTimeout, ConnectionClosed, ProtocolError, RemoteError

MAX_CALLS = 64
"""Calls that are under way at once; others wait. Each is two frames at most; 256 may wait at Go's reader."""

_Response = TypeVar("_Response", bound=Message)


class Peer:
    """Calls the other end's service and serves its own. To be made and used inside one event loop.

    :param sock: a connected unix stream socket; the peer owns it from now on.
    :param role: which end this is.

    `closed` is set when the connection is gone, whoever ended it, and `reason` then says why.
    """

    def __init__(self, sock: socket.socket, role: Role = Role.RUNTIME) -> None:
        self._sock = sock
        self._connection = Connection(role)
        self._wire = Wire(self._received, self._lost)
        self._server = Server(self._connection, self._wire)
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._answers: dict[int, asyncio.Future[ResponseReceived | None]] = {}
        self._started = False
        self.closed = asyncio.Event()
        self.reason: ConnectionClosed | ProtocolError | None = None

    def serve(self, service: str, handlers: Handlers) -> None:
        """Answer the requests for a service, by its full name. To be called before `start`: what comes for a
        service that is not there gets UNIMPLEMENTED.

        A handler that raises answers with the code and text of a `TriptychError`, or with UNKNOWN and the
        text of another error. It is cancelled when the caller's time is over, and when the connection goes.
        """
        self._server.serve(service, handlers)

    async def start(self) -> None:
        """Begin to read. Until then nothing is lost: it waits in the socket."""
        await self._wire.start(self._sock)
        self._started = True

    async def call(
        self, service: str, method: str, request: Message, response_type: type[_Response], timeout: float
    ) -> _Response:
        """Call a method of the other end. Calls may overlap; one that is cancelled leaves nothing behind.

        :param service: its full name.
        :param timeout: seconds from here to the answer; the other end is told what is left of them.
        :raises RemoteError: the other end answered with an error.
        :raises CallTimeout: it did not answer in time.
        :raises ConnectionClosed: the connection is gone, or went.
        :raises TooLarge: the request is above `MAX_MESSAGE`; nothing was sent.
        :raises ProtocolError: the answer is no `response_type`.
        :raises StateError: the peer was not started.
        """
        payload = request.SerializeToString()
        try:
            async with asyncio.timeout(timeout) as limit, self._calls:
                answer = await self._exchange(service, method, payload, limit)
        except TimeoutError:
            raise CallTimeout(f"{service}.{method}: no answer within {timeout:g} s") from None
        except ConnectionClosed as error:
            why = self._end(error)
            raise ConnectionClosed(f"{service}.{method}: {why.message.removeprefix('ttrpc: ')}") from why
        if answer.code:
            raise RemoteError(answer.code, answer.message)
        try:
            return response_type.FromString(answer.payload)
        except DecodeError as error:
            said = f"{service}.{method}: the answer is no {response_type.__name__}: {error}"
            raise ProtocolError(said) from error

    async def close(self) -> None:
        """Close the connection and wait until all handlers ended; calls under way get `ConnectionClosed`.

        A handler that calls this is cancelled as the others are.
        """
        self._end(ConnectionClosed("this end closed the connection"))
        if not self._started:
            self._sock.close()
            self._lost(None)
        await self.closed.wait()
        await self._server.ended()

    async def _exchange(
        self, service: str, method: str, payload: bytes, limit: asyncio.Timeout
    ) -> ResponseReceived:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ResponseReceived | None] = loop.create_future()
        async with self._wire.turn():
            # Only now, so that streams rise on the wire; who is cancelled before has sent nothing.
            nanoseconds = max(1, int(((limit.when() or 0) - loop.time()) * 1e9))
            stream_id, data = self._connection.request(service, method, payload, nanoseconds)
            self._wire.send(data)
            self._answers[stream_id] = answer
        try:
            received = await answer
        finally:
            del self._answers[stream_id]
        if received is None:
            raise ConnectionClosed("the connection went before the answer came")
        return received

    def _received(self, data: bytes) -> None:
        try:
            for event in self._connection.receive_data(data):
                match event:
                    case ResponseReceived(stream_id=stream_id):
                        answer = self._answers.get(stream_id)
                        if answer is not None and not answer.done():
                            answer.set_result(event)
                    case RequestReceived():
                        self._server.take(event)
                    case RequestRefused(stream_id=stream_id, code=code, message=message):
                        self._server.refuse(stream_id, code, message)
        except (ProtocolError, ConnectionClosed) as error:
            self._end(error.with_traceback(None))

    def _end(self, reason: ConnectionClosed | ProtocolError) -> ConnectionClosed | ProtocolError:
        """Close at once, for a reason unless there was one before; the first is returned."""
        self.reason = self.reason or reason
        self._wire.abort()
        return self.reason

    def _lost(self, exc: Exception | None) -> None:
        self.reason = self.reason or ConnectionClosed(
            f"the connection broke: {exc}" if exc else "the other end closed the connection"
        )
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(None)
        self._server.cancel()
        self.closed.set()
