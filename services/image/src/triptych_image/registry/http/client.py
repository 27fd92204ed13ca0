"""Requests with redirects and time limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Final

from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http.connection import ClosedEarly, Connection, Head, Headers
from triptych_image.registry.http.origin import BadUrl, Origin, join
from triptych_image.registry.http.pool import Pool, Route
from triptych_image.registry.http.response import Response
from triptych_image.registry.http.tls import DEFAULT_TLS, TlsConfig
from triptych_image.registry.settings import RegistrySettings

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 10
USER_AGENT: Final = "triptych-image"


@dataclass(frozen=True, slots=True)
class Link:
    """How one configured host is spoken to.

    :param origin: the host itself; extra headers, client certificates and authorization go to no other.
    :param headers: sent with every request to it.
    :param fallback: whether plain HTTP will do when it does not speak TLS.
    """

    origin: Origin
    tls: TlsConfig = DEFAULT_TLS
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dial_seconds: float | None = None
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for.

    :param authorization: value of Authorization; sent to the link's own origin only.
    :param body: bytes to send, with `content-length` among the headers.
    :param keep_tls: refuse a redirect from https to http; for answers that no digest vouches for.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    authorization: str = field(default="", repr=False)
    body: AsyncIterator[bytes] | None = field(default=None, repr=False)
    keep_tls: bool = False


class HttpClient:
    """Sends requests over kept connections."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.pool = Pool(settings)

    @property
    def settings(self) -> RegistrySettings:
        return self.pool.settings

    def reconfigure(self, settings: RegistrySettings) -> None:
        self.pool.settings = settings

    def close(self) -> None:
        self.pool.close()

    async def send(self, link: Link, request: Request) -> Response:
        """Send a request and follow redirects; any status but a redirect's is returned.

        :raises AttemptFailed: when no response head comes.
        """
        seen = 0
        while True:
            response = await self._send_once(link, request)
            location = response.head.get(b"location")
            follows = request.body is None and request.method in ("GET", "HEAD")
            if response.status not in _REDIRECTS or not location or not follows:
                return response
            host = response.host
            async with response:
                pass
            seen += 1
            if seen > _MAX_REDIRECTS:
                raise AttemptFailed(Failure.PROTOCOL, host, f"more than {_MAX_REDIRECTS} redirects")
            request = replace(request, url=self._following(link, request, response, location))

    def _following(self, link: Link, request: Request, response: Response, location: str) -> str:
        """Where a redirect leads to."""
        try:
            url = join(request.url, location)
        except BadUrl as error:
            raise AttemptFailed(Failure.PROTOCOL, response.host, f"redirect: {error}") from None
        leaves_tls = response.origin.scheme == "https" and url.lower().startswith("http:")
        if request.keep_tls and leaves_tls and not link.fallback:
            raise AttemptFailed(Failure.PROTOCOL, response.host, "redirects from https to http")
        return url

    async def _send_once(self, link: Link, request: Request) -> Response:
        try:
            origin, target = Origin.parse(request.url)
        except BadUrl as error:
            raise AttemptFailed(Failure.PROTOCOL, link.origin.authority, f"redirect: {error}") from None
        if link.fallback and (origin.host, origin.port) == (link.origin.host, link.origin.port):
            # A host that turned out to speak plain HTTP gives its own addresses as http.
            origin = link.origin
        home = origin == link.origin
        route = Route(
            origin,
            link.tls if home else link.tls.without_client(),
            min(link.dial_seconds or self.settings.dial_seconds, self.settings.host_seconds),
            link.fallback and home,
        )
        headers = self._headers(link, request, origin, home)
        for fresh in (False, True):
            connection = await self.pool.take(route, fresh=fresh)
            again = not fresh and request.body is None
            try:
                shown, also = _forwarded(connection, origin, target)
                head = await self._exchange(connection, request, shown, headers + also)
            except ClosedEarly:
                self.pool.drop(connection)
                if not again:
                    break  # of a body no second copy is at hand: who asked begins again
            except AttemptFailed as failure:
                doubtful = self.pool.doubt(connection)
                self.pool.drop(connection)
                if not (again and doubtful and failure.kind is Failure.PROTOCOL):
                    raise
            except BaseException:
                self.pool.drop(connection)
                raise
            else:
                # What servers of HTTPS say to a plain request, and so has to be asked for again with TLS.
                if head.status != 400 or not again or not self.pool.doubt(connection):
                    return Response(connection, head, request.method, origin, request.url, self.pool)
                self.pool.drop(connection)
        raise AttemptFailed(Failure.BROKEN, origin.authority, "connection closed without an answer")

    async def _exchange(
        self, connection: Connection, request: Request, target: str, headers: Headers
    ) -> Head:
        # A registry may need long to store what was uploaded.
        uploads = request.body is not None
        answer = min(self.settings.response_seconds, self.settings.host_seconds)
        seconds = self.settings.no_progress_seconds if uploads else answer
        try:
            if uploads:
                stall = self.settings.stall_seconds
                await connection.send(request.method, target, headers, request.body, stall)
            async with asyncio.timeout(seconds):
                if not uploads:
                    await connection.send(request.method, target, headers)
                return await connection.receive_head()
        except TimeoutError:
            raise AttemptFailed(Failure.SLOW, connection.host, f"no answer within {seconds:g} s") from None

    def _headers(self, link: Link, request: Request, origin: Origin, home: bool) -> Headers:
        headers: Headers = [("Host", origin.authority), ("Accept-Encoding", "identity")]
        names = {name.lower() for name, _ in request.headers}
        if home:
            own = [(name, value) for name, value in link.headers if name.lower() not in names]
            headers += own
            names |= {name.lower() for name, _ in own}
            if request.authorization and "authorization" not in names:
                headers.append(("Authorization", request.authorization))
        if "user-agent" not in names:
            headers.append(("User-Agent", USER_AGENT))
        return [*headers, *request.headers]


def _forwarded(connection: Connection, origin: Origin, target: str) -> tuple[str, Headers]:
    """The request target and more headers; a proxy that forwards is told the whole URL."""
    proxy = connection.forwarder
    if proxy is None:
        return target, []
    url = f"{replace(origin, scheme='http')}{target}"
    return url, [("Proxy-Authorization", proxy.authorization)] if proxy.authorization else []
