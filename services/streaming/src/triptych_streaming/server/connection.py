"""One client connection: its HTTP request, the claim of its session, and the session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from triptych_streaming.errors import HandshakeRefused, TokenUnknown, TooManySessions
from triptych_streaming.protocol.handshake import (
    Acceptance,
    RequestReader,
    SessionRequest,
    judge,
    not_found,
    refusal,
)
from triptych_streaming.records import Waiting
from triptych_streaming.server.wire import Wire
from triptych_streaming.sessions import Sessions
from triptych_streaming.store import SessionStore

log = logging.getLogger(__name__)

_REFUSED_SECONDS = 2.0
_GUESS_SECONDS = 0.5
"""How long somebody with a wrong token waits for the answer. It costs this side a timer."""

Serve = Callable[[Wire, Waiting, SessionRequest, Acceptance], Awaitable[None]]


class Connection:
    """From the first byte to the session's end. Never raises but for cancellation.

    :param serve: runs the session, once the 101 answer is written.
    """

    def __init__(self, wire: Wire, store: SessionStore, sessions: Sessions, serve: Serve) -> None:
        self._wire = wire
        self._store = store
        self._sessions = sessions
        self._serve = serve

    async def run(self, handshake_seconds: float) -> None:
        """Serve the connection; one that does not send its whole request in time is dropped silently."""
        try:
            request = await self._request(handshake_seconds)
            if request is None:
                self._wire.abort()
                return
            acceptance = self._judge(request)
            waiting = self._claim(request)
        except HandshakeRefused as refused:
            await self._refuse(refused)
            return
        self._wire.write([acceptance.response])
        await self._serve(self._wire, waiting, request, acceptance)

    async def _request(self, seconds: float) -> SessionRequest | None:
        """The client's request; None when it left or is too slow.

        :raises HandshakeRefused: it is no request for a session.
        """
        reader = RequestReader()
        found: asyncio.Future[SessionRequest | None] = asyncio.get_running_loop().create_future()

        def on_data(data: memoryview) -> None:
            if found.done():
                return
            try:
                request = reader.feed(data)
            except HandshakeRefused as refused:
                found.set_exception(refused)
            else:
                if request is not None:
                    # What comes next is the session's; it must not be read before that exists.
                    self._wire.hold(found)
                    found.set_result(request)

        def on_lost() -> None:
            if not found.done():
                found.set_result(None)

        self._wire.listen(on_data, on_lost)
        if self._wire.lost:
            on_lost()
        try:
            async with asyncio.timeout(seconds):
                return await found
        except TimeoutError:
            log.debug("a client sent no request in time", extra={"client": self._wire.peer})
            return None
        finally:
            self._wire.release(found)

    def _judge(self, request: SessionRequest) -> Acceptance:
        # Before the claim, so that a refused protocol does not use the token up.
        if not self._store.exists(request.token):
            raise not_found()
        return judge(request)

    def _claim(self, request: SessionRequest) -> Waiting:
        try:
            self._sessions.check_room()
        except TooManySessions as error:
            raise HandshakeRefused(503, str(error), [("Retry-After", "1")]) from None
        try:
            waiting = self._store.claim(request.token)
        except TokenUnknown:
            raise not_found() from None
        if waiting.session.kind is not request.kind:
            raise not_found()
        return waiting

    async def _refuse(self, refused: HandshakeRefused) -> None:
        self._sessions.refused(refused.status)
        log.debug("request refused", extra={"client": self._wire.peer, "status": refused.status})
        if refused.status == 404:
            await asyncio.sleep(_GUESS_SECONDS)
        self._wire.write([refusal(refused)])
        await self._wire.close(_REFUSED_SECONDS)
