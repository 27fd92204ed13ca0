"""The streaming daemon: sessions for exec, attach and port-forward."""

from __future__ import annotations

import asyncio
import time

import grpc
from triptych.streaming.v1 import streaming_pb2, streaming_pb2_grpc
from triptych_errors import Cancelled
from triptych_service.client import unary

from triptych_runtime.clients.calls import call
from triptych_runtime.errors import ServiceDown

_DAEMON = "triptych-streaming"
_SERVICE = "triptych.streaming.v1.StreamingService"
_PAUSE = 0.02


class StreamingClient:
    """StreamingService on the streaming daemon's socket.

    :param channel: one that is not intercepted.

    Calls wait for a daemon that is down, up to `deadline` seconds: it may be restarting.
    """

    def __init__(self, channel: grpc.aio.Channel, socket: str, deadline: float) -> None:
        self.socket = socket
        self.deadline = deadline
        self._stub = streaming_pb2_grpc.StreamingServiceStub(channel)

    async def open_exec(self, request: streaming_pb2.OpenExecRequest, deadline: float) -> str:
        """The URL of a new exec session."""
        return await self._open("OpenExec", request, deadline, "open exec session")

    async def open_attach(self, request: streaming_pb2.OpenAttachRequest, deadline: float) -> str:
        """The URL of a new attach session."""
        return await self._open("OpenAttach", request, deadline, "open attach session")

    async def open_port_forward(self, request: streaming_pb2.OpenPortForwardRequest, deadline: float) -> str:
        """The URL of a new port-forward session."""
        return await self._open("OpenPortForward", request, deadline, "open port-forward session")

    async def _open(self, name: str, request: object, deadline: float, step: str) -> str:
        """Ask again when the daemon ends under the call: it drops what it has not begun, the next answers.

        What was opened twice costs nothing: a URL that nobody comes for expires.
        """
        method, path = getattr(self._stub, name), f"/{_SERVICE}/{name}"
        end = time.monotonic() + deadline
        while True:
            left = max(end - time.monotonic(), 0.001)
            work = unary(method, path, request, timeout=left, wait_for_ready=True)
            try:
                answer: streaming_pb2.OpenResponse = await call(
                    work, daemon=_DAEMON, socket=self.socket, step=step, unreachable_at_deadline=True
                )
            except (Cancelled, ServiceDown):
                if time.monotonic() + _PAUSE >= end:
                    raise
            else:
                return answer.url
            await asyncio.sleep(_PAUSE)
