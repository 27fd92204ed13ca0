"""Errors of the SPDY engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triptych_errors import FailedPrecondition, InvalidArgument, ResourceExhausted

from triptych_spdy._constants import GoAwayStatus

if TYPE_CHECKING:
    from triptych_spdy._events import Event


class ProtocolError(InvalidArgument):
    """The peer broke the protocol so that the connection cannot go on.

    A GOAWAY with `status` waits in `Connection.data_to_send`; send it and close the transport.
    What was understood before the fault is in `events`.
    """

    def __init__(self, message: str, status: GoAwayStatus = GoAwayStatus.PROTOCOL_ERROR) -> None:
        super().__init__(f"spdy: {message}")
        self.status = status
        self.events: tuple[Event, ...] = ()


class StateError(FailedPrecondition):
    """The caller asked for something that the state of the connection or stream does not allow."""

    def __init__(self, message: str) -> None:
        super().__init__(f"spdy: {message}")


class InvalidHeaders(InvalidArgument):
    """A whole header block with names or values that are not allowed: one stream's fault."""


class FlowControlError(StateError):
    """More data than the peer's window has room for (only with flow control on)."""


class TooManyStreams(ResourceExhausted):
    """The peer's SETTINGS_MAX_CONCURRENT_STREAMS, or the 31-bit number space, leaves no stream to open."""

    def __init__(self, message: str) -> None:
        super().__init__(f"spdy: {message}")
