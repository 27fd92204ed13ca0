"""StreamingService: the runtime daemon hands sessions over, and gets URLs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc.aio
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych.streaming.v1 import streaming_pb2_grpc
from triptych_errors import InvalidArgument

from triptych_streaming.protocol.channels import StreamSet
from triptych_streaming.protocol.negotiation import Kind
from triptych_streaming.records import (
    AttachSession,
    ExecSession,
    PortForwardSession,
    Session,
    Target,
    Waiting,
)
from triptych_streaming.sessions import Sessions
from triptych_streaming.settings import Settings
from triptych_streaming.store import SessionStore

_KINDS = {
    Kind.EXEC: pb.SESSION_KIND_EXEC,
    Kind.ATTACH: pb.SESSION_KIND_ATTACH,
    Kind.PORT_FORWARD: pb.SESSION_KIND_PORT_FORWARD,
}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class StreamingServicer(streaming_pb2_grpc.StreamingServiceServicer):
    """Each Open call writes one file on tmpfs: it waits for nothing.

    :param settings: gives the settings as they are now.
    :param base_url: gives what URLs begin with.
    :param on_opened: told of each session that waits from now on.
    :param instance: this process's ID, for listings.
    """

    def __init__(
        self,
        store: SessionStore,
        sessions: Sessions,
        settings: Callable[[], Settings],
        base_url: Callable[[], str],
        on_opened: Callable[[Waiting], None],
        instance: int,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._settings = settings
        self._base_url = base_url
        self._on_opened = on_opened
        self._instance = instance

    async def OpenExec(self, request: pb.OpenExecRequest, context: Context) -> pb.OpenResponse:
        if not request.runtime_command:
            raise InvalidArgument("open exec: runtime_command is empty")
        try:
            document = json.loads(request.process)
        except ValueError as error:
            raise InvalidArgument(f"open exec: process is not JSON: {error}") from None
        if not isinstance(document, dict) or not document.get("args"):
            raise InvalidArgument("open exec: process has no args")
        return self._open(
            ExecSession(
                _container(request.target),
                _streams(request.streams),
                tuple(request.runtime_command),
                request.process,
                tuple(request.exec_args),
                request.container_pid,
                request.container_start_ticks,
            )
        )

    async def OpenAttach(self, request: pb.OpenAttachRequest, context: Context) -> pb.OpenResponse:
        if not request.attach_socket:
            raise InvalidArgument("open attach: attach_socket is empty")
        return self._open(
            AttachSession(
                _container(request.target),
                _streams(request.streams),
                request.attach_socket,
                request.control_fifo,
            )
        )

    async def OpenPortForward(self, request: pb.OpenPortForwardRequest, context: Context) -> pb.OpenResponse:
        if not request.target.pod_sandbox_id:
            raise InvalidArgument("open port-forward: pod_sandbox_id is empty")
        for port in request.ports:
            if not 0 < port <= 0xFFFF:
                raise InvalidArgument(f"open port-forward: port {port} is not in 1..65535")
        return self._open(
            PortForwardSession(_target(request.target), request.network_namespace, tuple(request.ports))
        )

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        response = pb.ListSessionsResponse()
        for active in self._sessions:
            response.sessions.add(
                id=active.id,
                kind=_KINDS[active.kind],
                target=_message(active.target),
                active=True,
                protocol=active.protocol,
                created_at=active.created_at,
                bytes_in=active.traffic.received,
                bytes_out=active.traffic.sent,
                instance=self._instance,
            )
        for waiting in self._store.waiting():
            response.sessions.add(
                id=waiting.id,
                kind=_KINDS[waiting.session.kind],
                target=_message(waiting.session.target),
                created_at=waiting.created_at,
            )
        return response

    def _open(self, session: Session) -> pb.OpenResponse:
        settings = self._settings()
        opened = self._store.open(session, lifetime=settings.timeouts.token, limit=settings.limits.tokens)
        self._on_opened(opened.waiting)
        return pb.OpenResponse(
            url=f"{self._base_url()}/{session.kind.value}/{opened.token}",
            expires_at=opened.waiting.expires_at,
        )


def _target(message: pb.Target) -> Target:
    return Target(
        message.pod_sandbox_id,
        message.container_id,
        message.pod_namespace,
        message.pod_name,
        message.pod_uid,
        message.container_name,
    )


def _message(target: Target) -> pb.Target:
    return pb.Target(
        pod_sandbox_id=target.pod_sandbox_id,
        container_id=target.container_id,
        pod_namespace=target.pod_namespace,
        pod_name=target.pod_name,
        pod_uid=target.pod_uid,
        container_name=target.container_name,
    )


def _container(message: pb.Target) -> Target:
    """:raises InvalidArgument: without a container."""
    if not message.container_id:
        raise InvalidArgument("container_id is empty")
    return _target(message)


def _streams(message: pb.Streams) -> StreamSet:
    """:raises InvalidArgument: combinations that Kubernetes does not allow."""
    if message.tty and message.stderr:
        raise InvalidArgument("tty and stderr cannot both be true: a terminal has one output")
    if not (message.stdin or message.stdout or message.stderr):
        raise InvalidArgument("one of stdin, stdout and stderr must be true")
    return StreamSet(message.stdin, message.stdout, message.stderr, message.tty)
