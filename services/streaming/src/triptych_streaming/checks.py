"""What the settings of the streaming daemon must be beyond their types."""

from __future__ import annotations

from collections.abc import Iterator

from triptych_service import Problem

from triptych_streaming.errors import TlsUnusable
from triptych_streaming.server import listener, tls
from triptych_streaming.settings import HttpSettings, Settings


def check(settings: Settings) -> Iterator[Problem]:
    """What a start would refuse; reads the certificate's files as they are now."""
    try:
        tls.make_context(settings.tls)
    except TlsUnusable as error:
        yield Problem(error.key, error.text)
    yield from _listen(settings.http, encrypted=bool(settings.tls.certificate))
    if settings.http.advertise and not _is_base(settings.http.advertise):
        text = f"expected the base of a URL such as `https://node-1:10010`, got {settings.http.advertise!r}"
        yield Problem("http.advertise", text)


def _listen(http: HttpSettings, *, encrypted: bool) -> Iterator[Problem]:
    try:
        host, _ = listener.split(http.listen)
    except ValueError as error:
        yield Problem("http.listen", str(error))
        return
    problem = listener.exposure(host, tls=encrypted, insecure=http.insecure)
    if problem:
        yield Problem("http.listen", problem)


def _is_base(text: str) -> bool:
    from urllib.parse import urlsplit  # few nodes advertise another name

    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)
