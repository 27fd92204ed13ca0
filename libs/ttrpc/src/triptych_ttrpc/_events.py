"""What `Connection.receive_data` reports."""

from __future__ import annotations

from dataclasses import dataclass

from triptych_errors import Code


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The peer calls; answer with `Connection.response` or `Connection.status`.

    :param payload: the serialized message.
    :param timeout_nano: nanoseconds that the peer waits, 0 for ever; not above 0 when it has given up.
    """

    stream_id: int
    service: str
    method: str
    payload: bytes
    timeout_nano: int


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """The peer sent a request that cannot be served; answer with `Connection.status` of these."""

    stream_id: int
    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """The peer's answer to a call; a call that nobody waits for any more is answered too.

    :param code: a gRPC status code as sent, 0 for success.
    :param message: what the peer says to an error.
    :param payload: the serialized message, empty for an error.
    """

    stream_id: int
    code: int
    message: str
    payload: bytes


Event = RequestReceived | RequestRefused | ResponseReceived
