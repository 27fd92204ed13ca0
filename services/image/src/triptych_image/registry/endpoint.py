"""Requests about one repository to one host, authorized."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from triptych_image.registry.hosts import Host
from triptych_image.registry.http import HttpClient, Link, Request, Response
from triptych_image.registry.tokens import Authorizer

PULL: Final = "pull"
PUSH: Final = "pull,push"

OpenBody = Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One repository at one host.

    :param path: the repository within the registry (`library/busybox`).
    """

    http: HttpClient
    authorizer: Authorizer
    host: Host
    path: str

    def url(self, tail: str, query: tuple[tuple[str, str], ...] = ()) -> str:
        """URL of something in the repository; mirrors are told whose it is by `ns`."""
        if self.host.namespace:
            query = (*query, ("ns", self.host.namespace))
        text = urlencode(query)
        return f"{self.host.base}/{self.path}/{tail}" + (f"?{text}" if text else "")

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        actions: str = PULL,
        also: str = "",
        body: OpenBody | None = None,
        keep_tls: bool = False,
    ) -> Response:
        """Send a request, answering one challenge; any other status is the caller's.

        :param actions: what the token must allow in this repository.
        :param also: one more scope (of the repository that a blob is mounted from).
        :param keep_tls: refuse redirects from https to http.
        :raises AttemptFailed: when no answer comes or there is no way in.
        """
        scope = f"repository:{self.path}:{actions}" + (f" {also}" if also else "")
        authorization = await self.authorizer.header(self.host, scope)
        for last in (False, True):
            request = Request(method, url, headers, authorization, body() if body else None, keep_tls)
            response = await self.http.send(self.host.link, request)
            if last or response.status != 401 or response.origin != self.host.link.origin:
                return response
            async with response:
                pass
            authorization = await self.authorizer.answer(self.host, response, scope, authorization)
        raise AssertionError("unreachable")

    async def send_elsewhere(self, url: str, headers: tuple[tuple[str, str], ...]) -> Response:
        """GET from where an earlier request was redirected to; nothing secret goes there."""
        link = Link(self.host.link.origin, self.host.link.tls, (), self.host.link.dial_seconds)
        return await self.http.send(link, Request("GET", url, headers))
