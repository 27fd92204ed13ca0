"""The forwarding ImageService: kubeadm and `crictl -r` know one endpoint only.

Bytes go through unparsed, with the caller's deadline and trace; status codes and messages come back
unchanged. A caller that goes away cancels the call behind it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import grpc
from runtime.v1 import api_pb2

SERVICE = "runtime.v1.ImageService"


class ImageForwarder(grpc.GenericRpcHandler):
    """Serves every method of ImageService by calling the image daemon."""

    def __init__(self, channel: grpc.aio.Channel, socket: str) -> None:
        self._channel = channel
        self._socket = socket
        descriptor = api_pb2.DESCRIPTOR.services_by_name["ImageService"]
        self._handlers = {
            f"/{SERVICE}/{method.name}": self._stream(f"/{SERVICE}/{method.name}")
            if method.server_streaming
            else self._unary(f"/{SERVICE}/{method.name}")
            for method in descriptor.methods
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(handler_call_details.method or "")

    def _unary(self, path: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)

        async def forward(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            try:
                answer: bytes = await call(request, timeout=_left(context))
            except grpc.aio.AioRpcError as error:
                await self._abort(context, error)
                raise
            return answer

        return grpc.unary_unary_rpc_method_handler(forward)

    def _stream(self, path: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)

        async def forward(
            request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]
        ) -> AsyncIterator[bytes]:
            try:
                async for answer in call(request, timeout=_left(context)):
                    yield answer
            except grpc.aio.AioRpcError as error:
                await self._abort(context, error)

        return grpc.unary_stream_rpc_method_handler(forward)

    async def _abort(
        self, context: grpc.aio.ServicerContext[bytes, bytes], error: grpc.aio.AioRpcError
    ) -> None:
        detail = error.details() or ""
        if error.code() is grpc.StatusCode.UNAVAILABLE and "connect" in detail.lower():
            detail = (
                f"triptych-image does not answer on {self._socket}: {detail} "
                "(start it: systemctl start triptych-image)"
            )
        await context.abort(error.code(), detail)


def _left(context: grpc.aio.ServicerContext[bytes, bytes]) -> float | None:
    """Seconds that the caller still waits, None for ever."""
    remaining = context.time_remaining()
    return remaining if remaining is not None and remaining < time.time() else None
