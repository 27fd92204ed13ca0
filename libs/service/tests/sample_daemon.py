"""A daemon with the bootstrap and nothing else, for the tests that need a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from runtime.v1 import api_pb2, api_pb2_grpc
from triptych_errors import NotFound
from triptych_service import (
    ConfigError,
    Daemon,
    Definition,
    Problem,
    Reload,
    ServiceSettings,
    connect,
    run,
    setting,
    span,
    tracing,
)

log = logging.getLogger("sample")


class Settings(ServiceSettings):
    greeting: str = setting("hello", "What it says.", reload=Reload.LIVE)
    root: str = setting("/nowhere", "Where it lives.")
    peer: str = setting("", "Socket of another daemon to ask.")


def check(settings: Settings) -> Iterator[Problem]:
    if not settings.greeting:
        yield Problem("greeting", "expected something to say, got ''")
    if settings.peer == settings.greeting:
        yield Problem("peer", "expected another daemon")


class Images(api_pb2_grpc.ImageServiceServicer):  # the rest is UNIMPLEMENTED
    def __init__(self, daemon: Daemon[Settings]) -> None:
        self.daemon = daemon

    async def ImageStatus(
        self, request: api_pb2.ImageStatusRequest, context: Any
    ) -> api_pb2.ImageStatusResponse:
        with span("look up", **{"image.name": request.image.image}) as step:
            trace = tracing.current.get()
            log.info("asked", extra={"image": request.image.image})
            if request.image.image == "missing":
                raise NotFound("image missing")
            if request.image.image == "large":
                return api_pb2.ImageStatusResponse(info={"large": "x" * (32 << 20)})
            if request.image.image == "broken":
                raise ValueError("it broke")
            step.set("found", True)
        answer = api_pb2.ImageStatusResponse(info={"trace": trace.trace_id if trace else ""})
        answer.info["greeting"] = self.daemon.settings.greeting
        answer.info["root"] = self.daemon.settings.root
        return answer

    async def RemoveImage(self, request: Any, context: Any) -> api_pb2.RemoveImageResponse:
        log.info("sleeping")
        await asyncio.sleep(float(request.image.image))
        return api_pb2.RemoveImageResponse()

    async def StreamImages(self, request: Any, context: Any) -> AsyncIterator[api_pb2.StreamImagesResponse]:
        yield api_pb2.StreamImagesResponse()
        await asyncio.sleep(3600)

    async def ListImages(self, request: Any, context: Any) -> api_pb2.ListImagesResponse:
        channel = connect(self.daemon.settings.peer)
        try:
            stub = api_pb2_grpc.ImageServiceStub(channel)
            answer = await stub.ImageStatus(api_pb2.ImageStatusRequest())
        finally:
            await channel.close()
        return api_pb2.ListImagesResponse(images=[api_pb2.Image(id=answer.info["trace"])])


@asynccontextmanager
async def start(daemon: Daemon[Settings]) -> AsyncIterator[None]:
    if daemon.settings.greeting == "too late":
        raise ConfigError(["greeting: expected it in time"])
    unfinished: Any = Images
    servicer = unfinished(daemon)
    api_pb2_grpc.add_ImageServiceServicer_to_server(servicer, daemon.server)
    daemon.add_service_name("runtime.v1.ImageService", endless=("StreamImages",))

    async def reloaded(settings: Settings) -> None:
        log.info("reloaded", extra={"greeting": settings.greeting, "passed": daemon.listen_fds})

    daemon.on_reload(reloaded)

    async def background() -> None:
        try:
            if daemon.settings.greeting == "crash":
                await asyncio.sleep(0.3)
                raise LookupError("the background broke")
            await asyncio.sleep(3600)
        finally:
            log.info("background ended")

    daemon.tasks.create_task(background())
    try:
        yield
    finally:
        log.info("closed")
        if daemon.settings.greeting == "drains":
            daemon.release_addresses()
            log.info("draining")
            await asyncio.sleep(3600)


if __name__ == "__main__":
    run(Definition("triptych-sample", "1.2.3", Settings, start, "/nonexistent/sample.sock", check))
