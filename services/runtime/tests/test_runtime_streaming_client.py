"""Sessions open although the streaming daemon is being restarted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych.streaming.v1 import streaming_pb2_grpc
from triptych_errors import NotFound
from triptych_runtime.clients.streaming import StreamingClient
from triptych_runtime.errors import ServiceDown

REQUEST = pb.OpenPortForwardRequest(target=pb.Target(pod_sandbox_id="p"))


class Ending(streaming_pb2_grpc.StreamingServiceServicer):
    """Answers calls with these codes, one each, and then well."""

    def __init__(self) -> None:
        self.codes: list[grpc.StatusCode] = []
        self.calls = 0

    async def OpenPortForward(self, request: Any, context: Any) -> pb.OpenResponse:
        self.calls += 1
        if self.codes:
            await context.abort(self.codes.pop(0), "the end")
        return pb.OpenResponse(url="http://here/token")


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Ending]:
    server = grpc.aio.server()
    servicer = Ending()  # type: ignore[abstract]
    streaming_pb2_grpc.add_StreamingServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call,unused-ignore]
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    yield servicer
    await server.stop(None)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[StreamingClient]:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        yield StreamingClient(channel, f"{tmp_path}/s", 60)


async def test_a_call_that_a_restart_drops_is_made_again(client: StreamingClient, daemon: Ending) -> None:
    daemon.codes = [grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]
    assert await client.open_port_forward(REQUEST, 60) == "http://here/token"
    assert daemon.calls == 4


async def test_an_answer_is_an_answer(client: StreamingClient, daemon: Ending) -> None:
    daemon.codes = [grpc.StatusCode.NOT_FOUND]
    with pytest.raises(NotFound, match="the end"):
        await client.open_port_forward(REQUEST, 60)
    assert daemon.calls == 1


async def test_it_gives_up_at_the_deadline(client: StreamingClient) -> None:
    with pytest.raises(ServiceDown, match="triptych-streaming"):
        await client.open_port_forward(REQUEST, 0.2)
