"""How one attempt at one host failed; the retry logic turns these into the errors that callers see."""

from __future__ import annotations

import enum


class Failure(enum.Enum):
    """What kind of failure, and thereby whether trying again may help."""

    UNREACHABLE = "cannot be reached"
    UNTRUSTED = "TLS failed"
    SLOW = "took too long"
    BROKEN = "connection broke"
    STALLED = "stalled"
    THROTTLED = "asks to slow down"
    OVERLOADED = "server error"
    NOT_FOUND = "not found"
    DENIED = "access denied"
    REFUSED = "refused"
    MISMATCH = "served the wrong content"
    MALFORMED = "served what is no manifest"
    UNSUPPORTED = "served a manifest of an unsupported kind"
    PROTOCOL = "broke the protocol"
    TOO_LARGE = "too large"


_TRANSIENT = frozenset(
    {
        Failure.UNREACHABLE,
        Failure.SLOW,
        Failure.BROKEN,
        Failure.STALLED,
        Failure.THROTTLED,
        Failure.OVERLOADED,
    }
)


class AttemptFailed(Exception):
    """One attempt failed; never leaves the registry package.

    :param host: who failed, as `host[:port]`.
    :param reason: for people, without secrets and query strings.
    :param retry_after: seconds that the server asked to wait.
    :param status: HTTP status, when there was an answer.
    """

    def __init__(
        self,
        kind: Failure,
        host: str,
        reason: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{host}: {reason}")
        self.kind = kind
        self.host = host
        self.reason = reason
        self.retry_after = retry_after
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.kind in _TRANSIENT
