"""Connections that are open, and how many of them there may be."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace

from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http.connection import Connection
from triptych_image.registry.http.dial import Hop, NotTls, dial
from triptych_image.registry.http.origin import Origin
from triptych_image.registry.http.plain import PlainHosts
from triptych_image.registry.http.proxies import ProxyKind, proxy_for
from triptych_image.registry.http.tls import TlsConfig, TlsContexts
from triptych_image.registry.settings import RegistrySettings


@dataclass(frozen=True, slots=True)
class Route:
    """How to connect to an origin; what two requests must share to share a connection.

    :param fallback: whether plain HTTP will do when the other side does not speak TLS.
    """

    origin: Origin
    tls: TlsConfig
    dial_seconds: float
    fallback: bool


@dataclass(slots=True)
class _Limit:
    """How many connections a host may still have, and how many have one or wait for one."""

    permits: asyncio.Semaphore
    users: int = 0


class Pool:
    """Hands out connections and takes them back."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self._contexts = TlsContexts()
        self._idle: dict[Route, list[Connection]] = {}
        self._routes: dict[Connection, Route] = {}
        self._limits: dict[Origin, _Limit] = {}
        self._plain = PlainHosts()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def take(self, route: Route, *, fresh: bool = False) -> Connection:
        """A connection, kept or new; give it back or drop it.

        :param fresh: do not take a kept one.
        :raises AttemptFailed: UNREACHABLE or UNTRUSTED.
        """
        await self._enter(route.origin)
        try:
            connection = None if fresh else self._kept(route)
            if connection is None:
                connection = await self._open(route)
        except BaseException:
            self._leave(route.origin)
            raise
        self._routes[connection] = route
        return connection

    async def _enter(self, origin: Origin) -> None:
        """Wait until the host may have one more connection."""
        limit = self._limits.get(origin)
        if limit is None:
            limit = self._limits[origin] = _Limit(asyncio.Semaphore(self.settings.connections_per_host))
        limit.users += 1
        try:
            await limit.permits.acquire()
        except BaseException:
            self._unused(origin, limit)
            raise

    def _leave(self, origin: Origin) -> None:
        limit = self._limits[origin]
        limit.permits.release()
        self._unused(origin, limit)

    def _unused(self, origin: Origin, limit: _Limit) -> None:
        """Forget a limit that nobody uses, so that a changed setting counts and names do not pile up."""
        limit.users -= 1
        if not limit.users:
            del self._limits[origin]

    def _kept(self, route: Route) -> Connection | None:
        kept = self._idle.get(route, [])
        while kept:
            connection = kept.pop()
            if connection.stream.is_idle():
                connection.reused = True
                return connection
            connection.close()
        return None

    async def _open(self, route: Route) -> Connection:
        origin, seconds = route.origin, route.dial_seconds
        if origin.scheme == "https" and not (route.fallback and origin in self._plain):
            context = await self._contexts.get(route.tls)
            try:
                stream = await dial(origin, context, await self._hop(origin, route.tls), seconds)
            except NotTls as error:
                if not route.fallback:
                    raise AttemptFailed(Failure.UNTRUSTED, origin.authority, f"TLS: {error}") from None
                self._plain.add(origin)
            else:
                return Connection(stream, origin.authority)
        hop = await self._hop(replace(origin, scheme="http"), route.tls)
        try:
            stream = await dial(origin, None, hop, seconds)
        except BaseException:
            self._plain.forget(origin)
            raise
        forwards = hop is not None and hop.proxy.kind is not ProxyKind.SOCKS5
        return Connection(stream, origin.authority, hop.proxy if hop and forwards else None)

    async def _hop(self, origin: Origin, tls: TlsConfig) -> Hop | None:
        """The proxy that an origin is reached through; trusted by what the host's CAs vouch for, always."""
        proxy = proxy_for(origin, os.environ) if self.settings.proxy_environment else None
        if proxy is None:
            return None
        if proxy.kind is not ProxyKind.HTTPS:
            return Hop(proxy, None)
        return Hop(proxy, await self._contexts.get(TlsConfig(ca=tls.ca)))

    def doubt(self, connection: Connection) -> bool:
        """An exchange failed: whether plain HTTP, which worked once, may be why. TLS is tried again then."""
        route = self._routes.get(connection)
        return route is not None and not connection.stream.tls and self._plain.forget(route.origin)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose exchange is complete for the next request."""
        route = self._forget(connection)
        if route is None or self._closed:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.setdefault(route, []).append(connection)
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self.settings.idle_connection_seconds, self._sweep)

    def drop(self, connection: Connection) -> None:
        """Close a connection."""
        self._forget(connection)
        connection.close()

    def _forget(self, connection: Connection) -> Route | None:
        route = self._routes.pop(connection, None)
        if route is not None:
            self._leave(route.origin)
        return route

    def _sweep(self) -> None:
        """Close what was idle for too long; runs only while something is idle."""
        self._sweeper = None
        now, limit = time.monotonic(), self.settings.idle_connection_seconds
        for route, kept in list(self._idle.items()):
            for connection in [one for one in kept if now - one.idle_since >= limit]:
                kept.remove(connection)
                connection.close()
            if not kept:
                del self._idle[route]
        if self._idle:
            self._sweeper = asyncio.get_running_loop().call_later(limit / 2, self._sweep)

    def close(self) -> None:
        """Close the kept connections; those in use are closed when they come back."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in [one for kept in self._idle.values() for one in kept]:
            connection.close()
        self._idle.clear()
