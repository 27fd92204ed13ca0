"""Connections that are open, and how many of them there may be."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http.connection import Connection
from triptych_image.registry.http.dial import NotTls, dial
from triptych_image.registry.http.origin import Origin
from triptych_image.registry.http.proxies import Proxy, proxy_for
from triptych_image.registry.http.tls import TlsConfig, TlsContexts
from triptych_image.registry.settings import RegistrySettings

_PLAIN_SECONDS = 300.0


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
        self._plain: dict[Origin, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def proxy(self, origin: Origin) -> Proxy | None:
        """The proxy that an origin is reached through."""
        return proxy_for(origin, os.environ) if self.settings.proxy_environment else None

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
        origin = route.origin
        proxy = self.proxy(origin)
        if origin.scheme == "https" and not self._is_plain(origin):
            context = await self._contexts.get(route.tls)
            try:
                return Connection(await dial(origin, context, proxy, route.dial_seconds), origin.authority)
            except NotTls as error:
                if not route.fallback:
                    raise AttemptFailed(Failure.UNTRUSTED, origin.authority, f"TLS: {error}") from None
                self._plain[origin] = time.monotonic() + _PLAIN_SECONDS
        return Connection(await dial(origin, None, proxy, route.dial_seconds), origin.authority)

    def _is_plain(self, origin: Origin) -> bool:
        until = self._plain.get(origin)
        if until is not None and until < time.monotonic():
            del self._plain[origin]
            return False
        return until is not None

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
