"""Errors of ttrpc."""

from __future__ import annotations

from triptych_errors import (
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    TriptychError,
    Unavailable,
)


class ProtocolError(Internal):
    """The peer sent what the protocol does not allow."""

    def __init__(self, message: str) -> None:
        super().__init__(f"ttrpc: {message}")


class ConnectionClosed(Unavailable):
    """The connection is gone, so a call got no answer; its `__cause__` tells who ended it, and how."""

    def __init__(self, message: str) -> None:
        super().__init__(f"ttrpc: {message}")


class CallTimeout(DeadlineExceeded):
    """The peer did not answer in time, or did not even read the request."""

    def __init__(self, message: str) -> None:
        super().__init__(f"ttrpc: {message}")


class TooLarge(ResourceExhausted):
    """A message above the limit, of which nothing was sent.

    :param length: of the message in ttrpc's envelope, in bytes; `maximum` is what would have gone.
    """

    def __init__(self, length: int, maximum: int) -> None:
        super().__init__(f"ttrpc: a message of {length} bytes; the limit is {maximum}")
        self.length = length
        self.maximum = maximum


class StateError(FailedPrecondition):
    """The caller asked for something that the state of the connection does not allow."""

    def __init__(self, message: str) -> None:
        super().__init__(f"ttrpc: {message}")


class RemoteError(TriptychError):
    """The peer answered with an error.

    :param code: a gRPC status code as sent; a number that is none becomes UNKNOWN.
    :param message: the peer's own words.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = Code(code) if code in set(Code) else Code.UNKNOWN
