"""Sessions open although the streaming daemon is being restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych.streaming.v1 import streaming_pb2_grpc
from triptych_errors import NotFound
from triptych_runtime.clients.streaming import StreamingClient
from triptych_runtime.errors import ServiceDown
from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.node import Node, Paths
from triptych_runtime.ociruntime import Handler, Handlers, OciRuntime
from triptych_runtime.readiness import Readiness
from triptych_runtime.rpc import exec as exec_module
from triptych_runtime.rpc import patience
from triptych_runtime.rpc.service import add_to_server
from triptych_runtime.settings import Settings
from triptych_service import tracing
from triptych_service._recording import RecordedSpan, Recorder, Sampling
from triptych_service.interceptors import ServerInterceptor

REQUEST = pb.OpenPortForwardRequest(target=pb.Target(pod_sandbox_id="p"))


class Ending(streaming_pb2_grpc.StreamingServiceServicer):
    """Answers calls with these codes, one each, and then well."""

    def __init__(self) -> None:
        self.codes: list[grpc.StatusCode] = []
        self.calls = 0

    async def OpenPortForward(self, request: Any, context: Any) -> pb.OpenResponse:
        self.calls += 1
        self.metadata = dict(context.invocation_metadata())
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


@pytest.mark.parametrize("recorded", [False, True])
async def test_a_call_goes_on_with_the_trace(
    client: StreamingClient, daemon: Ending, recorded: bool
) -> None:
    spans: list[RecordedSpan] = []
    identity = replace(tracing.TraceContext.new(), sampled=True)
    token = tracing.current.set(identity)
    tracing.install(Recorder(Sampling(), spans.append) if recorded else None)
    try:
        await client.open_port_forward(REQUEST, 60)
    finally:
        tracing.install(None)
        tracing.leave(token)
    assert [span.name for span in spans] == [
        "triptych.streaming.v1.StreamingService/OpenPortForward"
    ] * recorded
    assert all(span.attributes["rpc.grpc.status_code"] == 0 for span in spans)
    sent = tracing.TraceContext.parse(daemon.metadata["traceparent"])
    assert sent is not None and sent.trace_id == identity.trace_id
    assert (sent.span_id == identity.span_id) is not recorded


async def test_an_answer_is_an_answer(client: StreamingClient, daemon: Ending) -> None:
    daemon.codes = [grpc.StatusCode.NOT_FOUND]
    with pytest.raises(NotFound, match="the end"):
        await client.open_port_forward(REQUEST, 60)
    assert daemon.calls == 1


@pytest.mark.parametrize("method", ["Exec", "Attach", "PortForward"])
async def test_a_caller_that_waits_less_is_told_who_is_down(
    tmp_path: Path, client: StreamingClient, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """crictl waits for two seconds, where the daemon would wait for ten."""

    async def read_process(*arguments: object) -> dict[str, object]:
        return {}

    monkeypatch.setattr(exec_module, "read_process", read_process)
    monkeypatch.setattr(exec_module, "exec_process", lambda *arguments, **options: b"{}")
    monkeypatch.setattr(patience, "_ANSWER_SECONDS", 4)  # a machine may be slow
    ready = Readiness()
    ready.set_reconciled()
    server = grpc.aio.server(interceptors=[ServerInterceptor(asyncio.Event())])
    add_to_server(server, cast(Node, node(client)), ready)
    server.add_insecure_port(f"unix:{tmp_path}/runtime")
    await server.start()
    requests: dict[str, Any] = {
        "Exec": api_pb2.ExecRequest(container_id="c", cmd=["true"], stdout=True),
        "Attach": api_pb2.AttachRequest(container_id="c", stdout=True),
        "PortForward": api_pb2.PortForwardRequest(pod_sandbox_id="p"),
    }
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/runtime") as channel:
        stub = api_pb2_grpc.RuntimeServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(stub, method)(requests[method], timeout=5)
    await server.stop(None)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "triptych-streaming" in (caught.value.details() or "")


def node(streaming: StreamingClient) -> SimpleNamespace:
    """A node with one pod of one container, and a streaming daemon that may be down."""
    meta = api_pb2.PodSandboxMetadata(name="web", namespace="default", uid="u")
    sandbox = SandboxRecord(
        id="p",
        phase=SandboxPhase.READY,
        config=api_pb2.PodSandboxConfig(metadata=meta),
        handler="",
        created_at=0,
        namespaces={"net": "/run/netns/p"},
    )
    container = SimpleNamespace(
        id="c", name="main", sandbox_id="p", running=True, handler="crun", pid=1, start_ticks=1
    )
    container.config = api_pb2.ContainerConfig()
    crun = Handler("crun", OciRuntime("crun", "/no/crun", Path("/nowhere")))
    return SimpleNamespace(
        state=SimpleNamespace(sandbox=lambda _: sandbox, container=lambda _: container),
        handlers=Handlers({"crun": crun}, "crun"),
        paths=Paths(Path("/nowhere"), Path("/nowhere")),
        settings=Settings(),
        streaming=streaming,
    )


async def test_it_gives_up_at_the_deadline(client: StreamingClient) -> None:
    with pytest.raises(ServiceDown, match="triptych-streaming"):
        await client.open_port_forward(REQUEST, 0.2)
