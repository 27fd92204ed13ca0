"""One blob from whichever host serves it: opened at a position, resumed where it broke."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from triptych_oci import Descriptor

from triptych_image.registry.endpoint import Endpoint
from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.hosts import Host
from triptych_image.registry.hosts_toml import Capability
from triptych_image.registry.http import Link, Origin, Response
from triptych_image.registry.http.origin import BadUrl
from triptych_image.registry.http.tls import DEFAULT_TLS
from triptych_image.registry.replies import failure_of
from triptych_image.registry.settings import RegistrySettings
from triptych_image.registry.stall import StallGuard
from triptych_image.registry.walk import HostHealth, Walk

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_SKIP: Final = 256 << 10
_MOST_URLS: Final = 4


class BlobSource:
    """Where a blob may come from.

    :ivar ranges: whether the host that served last is known to serve ranges.
    :ivar requests: HTTP requests made for it.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        hosts: Sequence[Host],
        endpoint: Callable[[Host], Endpoint],
        settings: RegistrySettings,
        health: HostHealth,
        what: str,
    ) -> None:
        self.descriptor = descriptor
        self.size = descriptor.size
        self.settings = settings
        self.what = what
        self.ranges = False
        self.requests = 0
        self.host = ""
        self._urls = url_hosts(descriptor)
        self._hosts = hosts
        self._endpoint = endpoint
        self._health = health
        self._redirected: dict[str, str] = {}

    def walk(self) -> Walk:
        return Walk(self._hosts, self.settings, self._health, self.what)

    async def open(self, host: Host, start: int, end: int, *, strict: bool) -> Response:
        """The body of `[start, end)` from a host.

        :param strict: do not take the whole blob for a range of it.
        :raises AttemptFailed: when the host does not serve it.
        """
        ranged = start > 0 or end < self.size
        headers = (("Range", f"bytes={start}-{end - 1}"),) if ranged else ()
        response = await self._send(host, headers)
        try:
            await self._check(response, start, end, strict=strict)
        except BaseException:
            response.abandon()
            raise
        self.host = host.name
        self.ranges = response.status == 206 or response.head.get(b"accept-ranges").lower() == "bytes"
        return response

    async def _send(self, host: Host, headers: tuple[tuple[str, str], ...]) -> Response:
        endpoint = self._endpoint(host)
        self.requests += 1
        known = self._redirected.get(host.base)
        if known is not None:
            try:
                response = await endpoint.send_elsewhere(known, headers)
            except AttemptFailed:
                del self._redirected[host.base]
            else:
                if response.status in (200, 206):
                    return response
                # A signed URL that ran out, most likely: the registry gives a new one.
                del self._redirected[host.base]
                response.abandon()
        url = self._urls.get(host) or endpoint.url(f"blobs/{self.descriptor.digest}")
        response = await endpoint.send("GET", url, headers=headers)
        if response.origin != host.link.origin and response.status in (200, 206):
            self._redirected[host.base] = response.url
        return response

    async def _check(self, response: Response, start: int, end: int, *, strict: bool) -> None:
        if response.status == 206:
            self._check_range(response, start, end)
        elif response.status != 200:
            raise await failure_of(response, f"blob {self.descriptor.digest}")
        else:
            if response.left is not None and response.left != self.size:
                raise self._mismatch(response, f"blob has {response.left} bytes, not {self.size}")
            if strict:
                raise AttemptFailed(Failure.PROTOCOL, response.host, "serves no ranges")
            await self._skip(response, start)

    def _check_range(self, response: Response, start: int, end: int) -> None:
        text = response.head.get(b"content-range")
        found = _CONTENT_RANGE.fullmatch(text.strip())
        if found is None or int(found[1]) != start:
            raise AttemptFailed(
                Failure.PROTOCOL, response.host, f"Content-Range {text[:80]!r} is not from byte {start}"
            )
        if found[3] != "*" and int(found[3]) != self.size:
            raise self._mismatch(response, f"blob has {found[3]} bytes, not {self.size}")
        if response.left is not None and response.left > end - start:
            raise AttemptFailed(Failure.PROTOCOL, response.host, "serves more than the range asked for")

    async def _skip(self, response: Response, count: int) -> None:
        """Read past what is there already, for hosts that ignore Range."""
        buffer = memoryview(bytearray(min(_SKIP, count)))
        with StallGuard(response, self.settings):
            while count:
                done = await response.read_into(buffer[:count])
                if not done:
                    raise self._mismatch(response, "blob ends early")
                count -= done

    def _mismatch(self, response: Response, reason: str) -> AttemptFailed:
        return AttemptFailed(Failure.MISMATCH, response.host, reason)


def url_hosts(descriptor: Descriptor) -> dict[Host, str]:
    """Foreign layers carry URLs of their own; credentials are for none of them.

    They mostly have one. Each may take its time to fail, so of many only the first are tried.
    """
    found = {}
    for url in (descriptor.urls or ())[:_MOST_URLS] if descriptor.is_foreign else ():
        try:
            origin, target = Origin.parse(url)
        except BadUrl:
            continue
        full = f"{origin}{target}"
        found[Host(Link(origin, DEFAULT_TLS), full, Capability.PULL, "", is_registry=False)] = full
    return found


class Download:
    """The part `[position, end)` of a blob.

    :ivar position: first byte that did not arrive yet.
    :ivar end: may be lowered while it runs.
    """

    def __init__(self, source: BlobSource, position: int, end: int, *, strict: bool = False) -> None:
        self.source = source
        self.position = position
        self.end = end
        self._strict = strict
        self._walk = source.walk()

    async def run(self, pump: Callable[[Response], Awaitable[None]]) -> None:
        """Bring it to its end.

        :param pump: moves a body on, calling `advance`; returns at `end` or at the body's end.
        :raises TriptychError: when no host is left.
        """
        while self.position < self.end:
            host = await self._walk.next()
            try:
                response = await self.source.open(host, self.position, self.end, strict=self._strict)
                async with response:
                    with StallGuard(response, self.source.settings):
                        await pump(response)
                if self.position < self.end:
                    raise _early(response)
            except AttemptFailed as failure:
                self._walk.failed(failure)
            else:
                self._walk.succeeded()

    def advance(self, count: int) -> None:
        """Bytes were moved on."""
        self.position += count
        self._walk.progressed(count)


def _early(response: Response) -> AttemptFailed:
    """A body came to its end before the blob: of what was cut, or is a part only, the rest can be had."""
    part = response.status == 206 or not response.delimited
    return AttemptFailed(Failure.BROKEN if part else Failure.MISMATCH, response.host, "blob ends early")
