"""The streaming daemon: sessions for exec, attach and port-forward."""

from __future__ import annotations

from collections.abc import Awaitable

import grpc
from triptych.streaming.v1 import streaming_pb2, streaming_pb2_grpc

from triptych_runtime.clients.calls import call

_DAEMON = "triptych-streaming"


class StreamingClient:
    """StreamingService on the streaming daemon's socket.

    Calls wait for a daemon that is down, up to `deadline` seconds: it may be restarting.
    """

    def __init__(self, channel: grpc.aio.Channel, socket: str, deadline: float) -> None:
        self.socket = socket
        self.deadline = deadline
        self._stub = streaming_pb2_grpc.StreamingServiceStub(channel)

    async def open_exec(self, request: streaming_pb2.OpenExecRequest, deadline: float) -> str:
        """The URL of a new exec session."""
        work = self._stub.OpenExec(request, timeout=deadline, wait_for_ready=True)
        return (await self._call(work, "open exec session")).url

    async def open_attach(self, request: streaming_pb2.OpenAttachRequest, deadline: float) -> str:
        """The URL of a new attach session."""
        work = self._stub.OpenAttach(request, timeout=deadline, wait_for_ready=True)
        return (await self._call(work, "open attach session")).url

    async def open_port_forward(self, request: streaming_pb2.OpenPortForwardRequest, deadline: float) -> str:
        """The URL of a new port-forward session."""
        work = self._stub.OpenPortForward(request, timeout=deadline, wait_for_ready=True)
        return (await self._call(work, "open port-forward session")).url

    async def _call(
        self, work: Awaitable[streaming_pb2.OpenResponse], step: str
    ) -> streaming_pb2.OpenResponse:
        return await call(work, daemon=_DAEMON, socket=self.socket, step=step, unreachable_at_deadline=True)
