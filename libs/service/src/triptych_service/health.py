"""grpc.health.v1 and gRPC reflection: what probes, load balancers and grpcurl ask.

Both are built with the first request for them: few daemons are ever asked, and the reflection classes cost
memory in each.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from triptych_errors import NotFound

HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1.ServerReflection"
REFLECTION_ALPHA = "grpc.reflection.v1alpha.ServerReflection"

ENDLESS = frozenset(
    (f"/{HEALTH}/Watch", f"/{REFLECTION}/ServerReflectionInfo", f"/{REFLECTION_ALPHA}/ServerReflectionInfo")
)
"""Methods here that stream until the client leaves."""


class Health:
    """Which of the daemon's services serve; the empty name stands for the whole daemon.

    :ivar reloads: how many reloads are finished.
    """

    def __init__(self) -> None:
        self.reloads = 0
        self._serving: dict[str, bool] = {"": False}
        self._changed = asyncio.Condition()

    def add(self, service: str) -> None:
        """Know a service; it serves when the daemon does, until `set` says otherwise."""
        self._serving.setdefault(service, self._serving[""])

    async def set(self, service: str, *, serving: bool) -> None:
        """Announce whether a service works, to watchers too."""
        async with self._changed:
            self._serving[service] = serving
            self._changed.notify_all()

    async def set_all(self, *, serving: bool) -> None:
        """Announce the daemon and every service of it."""
        async with self._changed:
            self._serving = dict.fromkeys(self._serving, serving)
            self._changed.notify_all()

    def status(self, service: str) -> bool | None:
        """Whether a service works; None when it is not known."""
        return self._serving.get(service)

    async def changed(self, service: str, seen: bool | None) -> bool | None:
        """Wait until the status of a service is other than `seen`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._serving.get(service) is not seen)
            return self._serving.get(service)


def add_to_server(server: grpc.aio.Server, health: Health, names: Sequence[str], version: str) -> None:
    """Serve health, and reflection of the services in `names`, which may still grow.

    A health check also tells the daemon's version, its process ID and how many reloads it has finished, in
    the initial metadata `triptych-version`, `triptych-pid` and `triptych-reloads`. Reflection answers under
    its v1 name too: the messages are the same as in v1alpha.
    """
    server.add_generic_rpc_handlers(
        (
            _Lazy(HEALTH, lambda: _health_handlers(health, version)),
            _Lazy(REFLECTION, lambda: _reflection_handlers(names)),
            _Lazy(REFLECTION_ALPHA, lambda: _reflection_handlers(names)),
        )
    )


class _Lazy(grpc.GenericRpcHandler):
    """The methods of one service, made when the first of them is called."""

    def __init__(self, service: str, make: Callable[[], Mapping[str, Any]]) -> None:
        self._prefix = f"/{service}/"
        self._make = make
        self._handlers: Mapping[str, Any] | None = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if not method.startswith(self._prefix):
            return None
        if self._handlers is None:
            self._handlers = self._make()
        return self._handlers.get(method.removeprefix(self._prefix))


def _health_handlers(health: Health, version: str) -> Mapping[str, Any]:
    from grpc_health.v1 import health_pb2 as pb

    words = {
        True: pb.HealthCheckResponse.SERVING,
        False: pb.HealthCheckResponse.NOT_SERVING,
        None: pb.HealthCheckResponse.SERVICE_UNKNOWN,
    }

    about = (("triptych-version", version), ("triptych-pid", str(os.getpid())))

    async def check(request: pb.HealthCheckRequest, context: Any) -> pb.HealthCheckResponse:
        await context.send_initial_metadata((*about, ("triptych-reloads", str(health.reloads))))
        status = health.status(request.service)
        if status is None:
            raise NotFound(f"service {request.service} is not served here")
        return pb.HealthCheckResponse(status=words[status])

    async def watch(request: pb.HealthCheckRequest, context: Any) -> AsyncIterator[pb.HealthCheckResponse]:
        status = health.status(request.service)
        while True:
            yield pb.HealthCheckResponse(status=words[status])
            status = await health.changed(request.service, status)

    parse, serialize = pb.HealthCheckRequest.FromString, pb.HealthCheckResponse.SerializeToString
    return {
        "Check": grpc.unary_unary_rpc_method_handler(check, parse, serialize),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, parse, serialize),
    }


def _reflection_handlers(names: Sequence[str]) -> Mapping[str, Any]:
    from grpc_health.v1 import health_pb2  # noqa: F401  (its descriptors belong into the pool)
    from grpc_reflection.v1alpha import reflection_pb2 as pb
    from grpc_reflection.v1alpha._async import ReflectionServicer

    servicer = ReflectionServicer((*names, HEALTH, REFLECTION_ALPHA))
    return {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            pb.ServerReflectionRequest.FromString,
            pb.ServerReflectionResponse.SerializeToString,
        )
    }
