"""The HTTP server: from listening sockets to sessions."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from triptych_streaming.server.connection import Connection, Serve
from triptych_streaming.server.listener import Acceptor
from triptych_streaming.server.wire import Wire
from triptych_streaming.sessions import Sessions
from triptych_streaming.settings import Settings
from triptych_streaming.store import SessionStore

log = logging.getLogger(__name__)


class HttpServer:
    """Takes connections and runs each as a task of its own.

    :ivar settings: limits and timeouts of connections from now on.
    :ivar context: TLS for connections from now on; None for plain HTTP.
    """

    def __init__(
        self,
        settings: Settings,
        context: ssl.SSLContext | None,
        store: SessionStore,
        sessions: Sessions,
        serve: Serve,
    ) -> None:
        self.settings = settings
        self.context = context
        self._store = store
        self._sessions = sessions
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._handshakes: dict[asyncio.Task[None], None] = {}
        self._acceptor: Acceptor | None = None
        self._shared = False

    @asynccontextmanager
    async def listening(self, listener: socket.socket, *, shared: bool) -> AsyncIterator[None]:
        """Serve during the context; connections that became sessions go on after it, until `end`.

        :param shared: other processes hold the listener too.
        """
        self._shared = shared
        self._acceptor = Acceptor(listener, self._connected)
        self._acceptor.start()
        try:
            yield
        finally:
            self.stop_accepting()

    def stop_accepting(self) -> None:
        """Take no more connections."""
        if self._acceptor is not None:
            self._acceptor.stop(shared=self._shared)
            self._acceptor = None

    async def end(self) -> None:
        """Cancel every connection and wait for them."""
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.wait(self._tasks)

    @property
    def handshakes(self) -> int:
        """Connections that are no sessions yet."""
        return len(self._handshakes)

    def _connected(self, connection: socket.socket) -> None:
        limit = self.settings.limits.handshakes
        while len(self._handshakes) >= limit:
            # The oldest silent one makes room: new clients are the likelier honest ones.
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._run(connection), name="connection")
        self._tasks.add(task)
        self._handshakes[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._handshakes.pop(task, None)

    async def _run(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        limits, seconds = self.settings.limits, self.settings.timeouts.handshake
        wire: Wire | None = None
        try:
            _, wire = await loop.connect_accepted_socket(
                lambda: Wire(limits.stream_buffer_bytes),
                connection,
                ssl=self.context,
                ssl_handshake_timeout=max(seconds, 0.1) if self.context else None,
            )
            await Connection(wire, self._store, self._sessions, self._session).run(seconds)
        except OSError as error:  # errors of TLS too
            log.debug("connection failed", extra={"error": str(error)})
        except asyncio.CancelledError:
            log.debug("connection cut off")
        except Exception:
            log.exception("a connection failed by a fault of this daemon")
        finally:
            if wire is not None:
                wire.abort()
            else:
                connection.close()

    async def _session(self, *arguments: object) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._handshakes.pop(task, None)
        await self._serve(*arguments)  # type: ignore[arg-type]
