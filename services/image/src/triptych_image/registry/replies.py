"""What an error response says, as a failure of the attempt."""

from __future__ import annotations

from typing import Final

import msgspec

from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http import Response

_MAX_BODY: Final = 8 << 10
_MAX_TEXT: Final = 300
_THROTTLED: Final = frozenset({408, 425, 429})
_WORDS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    451: "Unavailable For Legal Reasons",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Body(msgspec.Struct):
    """The distribution specification's error body, and Docker Hub's token server's."""

    errors: list[_Error] | None = None
    details: str = ""


async def failure_of(response: Response, what: str) -> AttemptFailed:
    """The failure that a response other than a success stands for.

    :param what: what was asked for, to begin the text.
    """
    status = response.status
    said = _text(await response.peek(_MAX_BODY))
    words = f"{status} {_WORDS.get(status, '')}".rstrip()
    reason = f"{what}: unexpected status {words}" + (f": {said}" if said else "")
    return AttemptFailed(
        _kind(status), response.host, reason, retry_after=response.retry_after, status=status
    )


def _kind(status: int) -> Failure:
    if status in (401, 403):
        return Failure.DENIED
    if status == 404:
        return Failure.NOT_FOUND
    if status in _THROTTLED:
        return Failure.THROTTLED
    return Failure.OVERLOADED if status >= 500 else Failure.REFUSED


def _text(body: bytes) -> str:
    """The error codes and messages in a body; nothing of a body in another form."""
    try:
        parsed = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    texts = [": ".join(filter(None, (e.code.lower(), e.message))) for e in parsed.errors or ()]
    text = "; ".join(filter(None, [*texts, parsed.details]))
    return "".join(c if c.isprintable() else " " for c in text)[:_MAX_TEXT]
