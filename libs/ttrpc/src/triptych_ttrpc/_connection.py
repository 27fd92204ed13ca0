"""One end of the protocol, without I/O: caller on one of the two connections, server on the other."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from google.protobuf.message import DecodeError
from triptych_errors import Code
from ttrpc.v1.ttrpc_pb2 import Request, Response, Status

from triptych_ttrpc._events import Event, RequestReceived, RequestRefused, ResponseReceived
from triptych_ttrpc._frames import Flag, Message, MessageReader, MessageType, message_bytes
from triptych_ttrpc._mux import FrameReader, frames
from triptych_ttrpc.errors import ConnectionClosed, ProtocolError

_PLUGIN_SERVICE = 1
_RUNTIME_SERVICE = 2
_MAX_STREAM = 0xFFFF_FFFF
MAX_TEXT = 4096
"""Characters of a status' message that are sent."""


class Role(enum.Enum):
    """Which of the two services an end serves; it calls the other."""

    RUNTIME = (_PLUGIN_SERVICE, _RUNTIME_SERVICE)
    PLUGIN = (_RUNTIME_SERVICE, _PLUGIN_SERVICE)

    def __init__(self, calls_on: int, serves_on: int) -> None:
        self.calls_on = calls_on
        self.serves_on = serves_on


class Connection:
    """Received bytes become events, calls and answers become bytes.

    The bytes must be sent in the order in which they were made: numbers of streams rise.
    """

    def __init__(self, role: Role = Role.RUNTIME) -> None:
        self._role = role
        self._frames = FrameReader()
        self._messages = {role.calls_on: MessageReader(), role.serves_on: MessageReader()}
        self._next_stream = 1
        self._last_request = 0

    def request(self, service: str, method: str, payload: bytes, timeout_nano: int = 0) -> tuple[int, bytes]:
        """Call the peer: the number of the stream, which `ResponseReceived` will have, and what to send.

        :param payload: the serialized message.
        :param timeout_nano: nanoseconds that this end will wait, 0 for ever; the peer is told.
        :raises TooLarge: the request is above `MAX_MESSAGE`; nothing is to be sent.
        :raises ConnectionClosed: two thousand million calls were made, and there is no number left.
        """
        stream_id = self._next_stream
        if stream_id > _MAX_STREAM:
            raise ConnectionClosed("the connection has no streams left")
        request = Request(service=service, method=method, payload=payload, timeout_nano=timeout_nano)
        message = message_bytes(stream_id, MessageType.REQUEST, request.SerializeToString())
        self._next_stream += 2
        return stream_id, frames(self._role.calls_on, message)

    def response(self, stream_id: int, payload: bytes) -> bytes:
        """Answer a request with a serialized message.

        :raises TooLarge: the response is above `MAX_MESSAGE`; nothing is to be sent, so send a status.
        """
        return self._answer(stream_id, Response(payload=payload))

    def status(self, stream_id: int, code: Code, message: str) -> bytes:
        """Answer a request with an error; of a long message only the begin is sent."""
        text = message[:MAX_TEXT].encode(errors="replace").decode()
        return self._answer(stream_id, Response(status=Status(code=code, message=text)))

    def receive_data(self, data: bytes) -> Iterator[Event]:
        """Yield what `data` completes. The iterator must be exhausted before more is received.

        :raises ProtocolError: the peer broke the protocol so that the connection cannot go on: close it.
        """
        for connection_id, piece in self._frames.feed(data):
            reader = self._messages.get(connection_id)
            if reader is None:
                continue
            understand = self._as_server if connection_id == self._role.serves_on else self._as_caller
            for message in reader.feed(piece):
                event = understand(message)
                if event is not None:
                    yield event

    def _answer(self, stream_id: int, response: Response) -> bytes:
        message = message_bytes(stream_id, MessageType.RESPONSE, response.SerializeToString())
        return frames(self._role.serves_on, message)

    def _as_caller(self, message: Message) -> Event | None:
        stream_id = message.stream_id
        if message.type != MessageType.RESPONSE:
            raise ProtocolError(
                f"a message of type {message.type} on stream {stream_id}, which awaits a response"
            )
        try:
            response = Response.FromString(message.payload)
        except DecodeError as error:
            raise ProtocolError(f"the response on stream {stream_id} is none: {error}") from error
        return ResponseReceived(stream_id, response.status.code, response.status.message, response.payload)

    def _as_server(self, message: Message) -> Event | None:
        """As Go's server: who asks wrongly is told, and types of later versions are passed over."""
        stream_id = message.stream_id
        if message.type not in (MessageType.REQUEST, MessageType.DATA):
            return None
        if not stream_id % 2:
            return RequestRefused(stream_id, Code.INVALID_ARGUMENT, f"stream {stream_id} is not odd")
        if message.type == MessageType.DATA:
            return RequestRefused(stream_id, Code.INVALID_ARGUMENT, f"stream {stream_id} takes no data")
        if stream_id <= self._last_request:
            said = f"stream {stream_id} after {self._last_request}: numbers must rise"
            return RequestRefused(stream_id, Code.INVALID_ARGUMENT, said)
        self._last_request = stream_id
        if message.flags & (Flag.REMOTE_CLOSED | Flag.REMOTE_OPEN):
            return RequestRefused(stream_id, Code.UNIMPLEMENTED, "no method is streamed here")
        try:
            request = Request.FromString(message.payload)
        except DecodeError as error:
            return RequestRefused(stream_id, Code.INVALID_ARGUMENT, f"this is no request: {error}")
        return RequestReceived(
            stream_id, request.service, request.method, request.payload, request.timeout_nano
        )
