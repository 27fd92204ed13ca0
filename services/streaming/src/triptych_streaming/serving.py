"""Runs one claimed session: puts its protocol and its work together, and accounts for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

from triptych_errors import TriptychError
from triptych_service.tasks import Tasks

from triptych_streaming.protocol.forward import PortForward
from triptych_streaming.protocol.handshake import Acceptance, SessionRequest, Transport
from triptych_streaming.protocol.negotiation import (
    SPDY_REMOTE,
    TUNNELS,
    WEBSOCKET_PORT_FORWARD,
    WEBSOCKET_REMOTE,
)
from triptych_streaming.protocol.portforward_spdy import SpdyPortForward
from triptych_streaming.protocol.portforward_websocket import TunnelPortForward, WebSocketPortForward
from triptych_streaming.protocol.remotecommand import RemoteCommand
from triptych_streaming.protocol.remotecommand_spdy import SpdyRemoteCommand
from triptych_streaming.protocol.remotecommand_websocket import WebSocketRemoteCommand
from triptych_streaming.protocol.status import Outcome
from triptych_streaming.protocol.websocket import open_websocket
from triptych_streaming.records import AttachSession, ExecSession, PortForwardSession, Waiting
from triptych_streaming.server.wire import Wire
from triptych_streaming.sessions import Active, Sessions
from triptych_streaming.settings import Settings
from triptych_streaming.workers.attach import AttachBackend
from triptych_streaming.workers.backend import Backend
from triptych_streaming.workers.dial import dial
from triptych_streaming.workers.exec import ExecBackend
from triptych_streaming.workers.forward import ForwardLimits, ForwardSession
from triptych_streaming.workers.headstart import HeadStarts
from triptych_streaming.workers.quota import Quota, descriptors
from triptych_streaming.workers.remote import RemoteLimits, RemoteSession
from triptych_streaming.workers.workspace import sweep


class Server:
    """Serves sessions with the settings of the moment they begin.

    :param directory: on tmpfs, for the files of processes that start.
    :param tasks: for what happens behind the answers to others.
    """

    def __init__(self, settings: Settings, sessions: Sessions, directory: Path, tasks: Tasks) -> None:
        self.settings = settings
        self._sessions = sessions
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(directory)
        most = descriptors()
        self._forwarded = Quota(lambda: min(self.settings.limits.forwarded_connections, most))
        self._head_starts = HeadStarts(tasks, self._exec, lambda: self.settings.timeouts.head_start)

    def opened(self, waiting: Waiting) -> None:
        """A session waits from now on: do what can be done before its client comes."""
        self._head_starts.begin(waiting)

    async def serve(
        self, wire: Wire, waiting: Waiting, request: SessionRequest, acceptance: Acceptance
    ) -> None:
        """Run a session to its end; what goes wrong is told to the client and to the log."""
        session = waiting.session
        if isinstance(session, PortForwardSession):
            forward = self._forward_protocol(session, acceptance)
            with self._sessions.running(waiting, forward.name, wire.peer) as active:
                wire.probe = forward.probe
                await self._guarded(active, self._forward(wire, session, forward, active, request.early))
        else:
            command = self._remote_protocol(session, acceptance)
            with self._sessions.running(waiting, command.name, wire.peer) as active:
                wire.probe = command.probe
                backend = self._head_starts.take(waiting) or self._backend(session)
                await self._guarded(active, self._remote(wire, backend, command, active, request.early))

    async def _guarded(self, active: Active, work: Awaitable[Outcome]) -> None:
        try:
            active.outcome = await work
        except TriptychError as error:
            active.reason = str(error)
        except asyncio.CancelledError:
            active.reason = "the streaming daemon stops"
            raise

    async def _remote(
        self,
        wire: Wire,
        backend: Backend,
        protocol: RemoteCommand,
        active: Active,
        early: bytes,
    ) -> Outcome:
        timeouts, limits = self.settings.timeouts, self.settings.limits

        remote = RemoteSession(
            wire,
            protocol,
            RemoteLimits(
                limits.stream_buffer_bytes,
                timeouts.creation,
                timeouts.idle,
                timeouts.linger,
                timeouts.hangup,
                timeouts.lag,
            ),
            active.traffic,
        )
        outcome = await remote.run(backend, early)
        active.reason = remote.left
        return outcome

    def _backend(self, session: ExecSession | AttachSession) -> Backend:
        if isinstance(session, ExecSession):
            return self._exec(session)
        return AttachBackend(session, deadline=self.settings.timeouts.exec_start)

    def _exec(self, session: ExecSession) -> ExecBackend:
        return ExecBackend(session, self._directory, deadline=self.settings.timeouts.exec_start)

    async def _forward(
        self, wire: Wire, session: PortForwardSession, protocol: PortForward, active: Active, early: bytes
    ) -> Outcome:
        timeouts, limits = self.settings.timeouts, self.settings.limits
        forward = ForwardSession(
            wire,
            protocol,
            ForwardLimits(
                limits.stream_buffer_bytes, limits.forward_backlog_bytes, timeouts.creation, timeouts.idle
            ),
            active.traffic,
            lambda port: dial(session.network_namespace, port, deadline=timeouts.dial),
            self._forwarded,
        )
        return await forward.run(early)

    def _remote_protocol(
        self, session: ExecSession | AttachSession, acceptance: Acceptance
    ) -> RemoteCommand:
        name, streams = acceptance.protocol, session.streams
        if isinstance(session, AttachSession):
            # The terminal is the container's, so this client may have none, and no size to tell.
            streams = replace(streams, tty=False)
        if acceptance.transport is Transport.SPDY:
            return SpdyRemoteCommand(streams, SPDY_REMOTE[name], name)
        form = WEBSOCKET_REMOTE[name]
        limit = self.settings.limits.message_bytes
        return WebSocketRemoteCommand(open_websocket(limit), streams, form.version, name, base64=form.base64)

    def _forward_protocol(self, session: PortForwardSession, acceptance: Acceptance) -> PortForward:
        name = acceptance.protocol
        limits = self.settings.limits
        if acceptance.transport is Transport.WEBSOCKET and name not in TUNNELS:
            form = WEBSOCKET_PORT_FORWARD[name]
            limit = limits.message_bytes
            return WebSocketPortForward(open_websocket(limit), session.ports, name, base64=form.base64)
        inner = SpdyPortForward(
            streams=limits.streams_per_session, pair_timeout=self.settings.timeouts.creation
        )
        if acceptance.transport is Transport.SPDY:
            return inner
        return TunnelPortForward(open_websocket(limits.message_bytes), inner, name)
