"""Errors of the streaming daemon."""

from __future__ import annotations

from collections.abc import Sequence

from triptych_errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)


class HandshakeRefused(InvalidArgument):
    """An HTTP request that does not become a session; `status` and `headers` make the answer."""

    def __init__(self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = tuple(headers)


class PeerFault(InvalidArgument):
    """The client broke the protocol of its session; the connection ends."""


class StreamsMissing(DeadlineExceeded):
    """The client did not open the streams of its session in time."""


class SessionIdle(DeadlineExceeded):
    """No byte passed in either direction for the idle timeout."""


class ClientLagging(DeadlineExceeded):
    """A client did not read for so long that who shares the output with it had to be freed of it."""


class TokenUnknown(NotFound):
    """A token that is wrong, was used, or has expired: told apart by nobody."""


class TooManySessions(ResourceExhausted):
    """A limit on tokens outstanding or sessions at once."""


class ContainerGone(FailedPrecondition):
    """The container ended between the request and the client's arrival, or its monitor did."""


class ExecFailed(Internal):
    """The OCI runtime did not start the process."""


class DialFailed(Unavailable):
    """Nothing in the pod's network namespace takes connections on the port."""


class ListenFailed(FailedPrecondition):
    """The HTTP address cannot be served: another process has it, or this machine does not."""


class TlsUnusable(FailedPrecondition):
    """Certificate, key or client CA cannot be used, or are missing where they must be.

    :param key: of the setting that is to blame.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}")
        self.key = key
        self.text = text
