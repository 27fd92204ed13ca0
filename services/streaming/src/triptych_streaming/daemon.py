"""The daemon put together: stores, servers, their start, reload and end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from triptych.streaming.v1 import streaming_pb2_grpc
from triptych_service import Daemon
from triptych_service.running import EXIT_FAILED

from triptych_streaming import handover
from triptych_streaming.errors import TlsUnusable
from triptych_streaming.server import listener as listening
from triptych_streaming.server.http import HttpServer
from triptych_streaming.server.tls import make_context, stamp
from triptych_streaming.servicer import StreamingServicer
from triptych_streaming.serving import Server
from triptych_streaming.sessions import Sessions
from triptych_streaming.settings import Settings
from triptych_streaming.store import SessionStore
from triptych_streaming.workers import reaper

log = logging.getLogger(__name__)

SERVICE = "triptych.streaming.v1.StreamingService"
_SWEEP_SECONDS = 15.0
_CERTIFICATE_SECONDS = 10.0
_COUNT_SECONDS = 5.0


@asynccontextmanager
async def start(daemon: Daemon[Settings]) -> AsyncIterator[None]:
    """Serve until the daemon stops, then drain.

    :raises ListenFailed: the HTTP address cannot be served.
    :raises ConfigError: the socket that was passed would show sessions to the network.
    :raises TlsUnusable: the certificate cannot be used.
    """
    settings = daemon.settings
    reaper.become_subreaper()
    context = await asyncio.to_thread(make_context, settings.tls)
    passed = daemon.listen_fds.get("http")
    listener = listening.open_listener(
        passed,
        settings.http.listen,
        backlog=settings.http.backlog,
        tls=context is not None,
        insecure=settings.http.insecure,
    )
    state = Path(settings.state)
    store = SessionStore(state / "sessions")
    sessions = Sessions(daemon.metrics, settings.limits.sessions)
    server = Server(settings, sessions, state / "exec", daemon.tasks)
    http = HttpServer(settings, context, store, sessions, server.serve)

    address = listening.base_url(listener, tls=context is not None)

    def base_url() -> str:
        return daemon.settings.http.advertise.rstrip("/") or address

    servicer = StreamingServicer(
        store, sessions, lambda: daemon.settings, base_url, server.opened, os.getpid()
    )
    streaming_pb2_grpc.add_StreamingServiceServicer_to_server(servicer, daemon.server)
    daemon.add_service_name(SERVICE)
    reload = _Reload(http, server, sessions)
    daemon.on_reload(reload)
    daemon.tasks.create_task(reload.watch_certificates(), name="certificates")
    daemon.tasks.create_task(_sweep(store), name="sweep")
    if daemon.metrics.recording:
        daemon.tasks.create_task(_count(sessions), name="count")
    daemon.tasks.create_task(reaper.reap_strays(), name="reap strays")
    log.info("streaming", extra={"url": base_url(), "passed": passed is not None})
    for name in daemon.listen_fds.keys() - {"http"}:
        log.warning("a passed socket is not served: one is enough, called `http`", extra={"socket": name})
    failed = True
    try:
        async with http.listening(listener, shared=passed is not None):
            daemon.tasks.create_task(_stop_accepting(daemon, http), name="stop accepting")
            yield
        failed = False
    finally:
        # When another part of the daemon failed, its sessions end as in a restart too.
        await _drain(daemon, http, sessions, failed=failed)


async def _stop_accepting(daemon: Daemon[Settings], http: HttpServer) -> None:
    """New clients are the next process's as soon as the stop begins, not when the last RPC ended."""
    await daemon.stopping.wait()
    http.stop_accepting()


async def _drain(daemon: Daemon[Settings], http: HttpServer, sessions: Sessions, *, failed: bool) -> None:
    """Let sessions end by themselves up to the limit; a second signal ends them at once."""
    daemon.release_addresses()
    handover.released(EXIT_FAILED if failed else 0)
    seconds = daemon.settings.timeouts.drain
    if len(sessions) or http.handshakes:
        log.info("draining", extra={"sessions": len(sessions), "seconds": seconds})
        current = asyncio.ensure_future(_finish(http, sessions, seconds))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, current.cancel)
        await asyncio.wait((current,))
    await http.end()


async def _finish(http: HttpServer, sessions: Sessions, seconds: float) -> None:
    # A client whose request is on its way gets its session still.
    for _ in range(20):
        if not http.handshakes:
            break
        await asyncio.sleep(0.05)
    cut = await sessions.drain(seconds)
    if cut:
        log.warning("sessions were ended at the drain limit", extra={"sessions": cut})


async def _count(sessions: Sessions) -> None:
    """A session may last for days: what it moves shall show while it does."""
    while True:
        await asyncio.sleep(_COUNT_SECONDS)
        sessions.count_traffic()


async def _sweep(store: SessionStore) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        try:
            store.sweep()
        except OSError as error:  # such as EMFILE: no reason to end the sessions
            log.warning("cannot sweep the sessions that wait", extra={"error": str(error)})


class _Reload:
    """What SIGHUP changes: certificates, limits and timeouts, from the next connection on.

    Certificates are also taken when their files change, so that whoever renews them need not know of this
    daemon.
    """

    def __init__(self, http: HttpServer, server: Server, sessions: Sessions) -> None:
        self._http = http
        self._server = server
        self._sessions = sessions
        self._seen = stamp(http.settings.tls)

    async def __call__(self, settings: Settings) -> None:
        self._sessions.limit = settings.limits.sessions
        self._server.settings = self._http.settings = settings
        await self._certificates()

    async def _certificates(self) -> None:
        """:raises TlsUnusable: the new files are unfit; the old ones stay in use."""
        settings = self._http.settings.tls
        self._seen = stamp(settings)
        context = await asyncio.to_thread(make_context, settings)
        if (context is None) != (self._http.context is None):
            raise TlsUnusable("tls.certificate", "encryption is turned on or off by a restart only")
        self._http.context = context

    async def watch_certificates(self) -> None:
        """Take renewed files, until cancelled."""
        while True:
            await asyncio.sleep(_CERTIFICATE_SECONDS)
            if stamp(self._http.settings.tls) == self._seen:
                continue
            try:
                await self._certificates()
                log.info("certificate files changed and were read again")
            except TlsUnusable as error:
                log.error("certificate files changed, the old ones stay in use", extra={"error": str(error)})
