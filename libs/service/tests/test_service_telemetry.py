"""Spans and metrics against real receivers: an OTLP collector in the test, a scrape over HTTP."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych_dev.patience import PATIENCE
from triptych_service import ServiceSettings, TelemetrySettings, connect, span, telemetry, tracing
from triptych_service.metrics import Metrics
from triptych_service.settings import MetricsSettings
from triptych_service.telemetry import wanted
from triptych_service.tracing import TraceContext

Start = Callable[..., Any]
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(
    trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer
):
    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.metrics: dict[str, Any] = {}
        self.headers: dict[str, str] = {}

    def Export(self, request: Any, context: Any) -> Any:
        self.headers.update(context.invocation_metadata())
        if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest):
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    self.metrics.update({metric.name: metric for metric in scope.metrics})
            return metrics_service_pb2.ExportMetricsServiceResponse()
        for resource in request.resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(attributes["service.name"], found) for found in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> tuple[str, Any]:
        found = [entry for entry in self.spans if entry[1].name == name]
        assert len(found) == 1, [entry[1].name for entry in self.spans]
        return found[0]


@pytest.fixture
def collector(serve_otlp: Callable[[Any], str]) -> tuple[Collector, str]:
    servicer = Collector()
    return servicer, serve_otlp(servicer)


async def list_images(path: Path, **metadata: str) -> Any:
    channel = connect(str(path))
    try:
        stub: Any = api_pb2_grpc.ImageServiceStub(channel)
        return await stub.ListImages(
            api_pb2.ListImagesRequest(), metadata=tuple(metadata.items()), timeout=60 * PATIENCE
        )
    finally:
        await channel.close()


async def test_one_request_is_one_trace_across_daemons(
    start: Start, collector: tuple[Collector, str]
) -> None:
    received, endpoint = collector
    config = f'[telemetry]\nendpoint = "{endpoint}"\nheaders = {{ authorization = "x" }}\n'
    first = start(config, name="a", env={"OTEL_SERVICE_NAME": "first"})
    second = start(f'peer = "{first.socket}"\n{config}', name="b")
    await list_images(second.socket, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    await asyncio.gather(asyncio.to_thread(second.stop), asyncio.to_thread(first.stop))

    outer = received.named("runtime.v1.ImageService/ListImages")
    inner = received.named("look up")
    calls = [e for e in received.spans if e[1].name == "runtime.v1.ImageService/ImageStatus"]
    client = next(e for e in calls if e[1].kind == e[1].SPAN_KIND_CLIENT)
    server = next(e for e in calls if e[1].kind == e[1].SPAN_KIND_SERVER)
    assert {e[1].trace_id.hex() for e in (outer, inner, client, server)} == {TRACE}
    assert outer[1].parent_span_id.hex() == "b7ad6b7169203331"
    assert client[1].parent_span_id == outer[1].span_id
    assert server[1].parent_span_id == client[1].span_id
    assert inner[1].parent_span_id == server[1].span_id
    assert [e[0] for e in (outer, client, server, inner)] == [
        "triptych-sample",
        "triptych-sample",
        "first",
        "first",
    ]
    attributes = {a.key: a.value for a in outer[1].attributes}
    assert attributes["rpc.system"].string_value == "grpc"
    assert attributes["rpc.grpc.status_code"].int_value == 0
    assert received.headers["authorization"] == "x"


async def test_only_failures_of_the_server_mark_its_span(
    start: Start, collector: tuple[Collector, str]
) -> None:
    received, endpoint = collector
    daemon = start(env={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    channel = connect(str(daemon.socket))
    stub: Any = api_pb2_grpc.ImageServiceStub(channel)
    for image in ("missing", "broken"):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ImageStatus(api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=image)))
    await channel.close()
    await asyncio.to_thread(daemon.stop)
    spans = [e[1] for e in received.spans if e[1].name.endswith("ImageStatus")]
    codes = {{a.key: a.value.int_value for a in s.attributes}["rpc.grpc.status_code"]: s for s in spans}
    assert codes[5].status.code == 0
    assert codes[13].status.code == 2
    assert codes[13].status.message == "INTERNAL: it broke"


async def test_metrics_are_scraped_and_exported(start: Start, collector: tuple[Collector, str]) -> None:
    received, endpoint = collector
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    daemon = start(
        f'[metrics]\naddress = "127.0.0.1:{port}"\n[telemetry]\nendpoint = "{endpoint}"\nmetrics = true\n'
    )
    channel = connect(str(daemon.socket))
    await api_pb2_grpc.ImageServiceStub(channel).ImageStatus(api_pb2.ImageStatusRequest())
    await channel.close()
    head = body = ""
    async with asyncio.timeout(60 * PATIENCE):
        while "triptych_event_loop_lag_seconds" not in body:  # told once a second
            await asyncio.sleep(0.05)
            head, body = await get("127.0.0.1", port, "/metrics")
    assert head.startswith("HTTP/1.1 200 OK")
    families = {family.name: family for family in text_string_to_metric_families(body)}
    counts = [
        sample
        for sample in families["triptych_rpc_duration_seconds"].samples
        if sample.name.endswith("_count")
    ]
    assert counts[0].labels == {
        "service": "runtime.v1.ImageService",
        "method": "ImageStatus",
        "code": "OK",
    }
    assert counts[0].value == 1
    assert "triptych_event_loop_lag_seconds" in families
    assert "process_resident_memory_bytes" in families
    assert (await get("127.0.0.1", port, "/"))[0].startswith("HTTP/1.1 404")
    await asyncio.to_thread(daemon.stop)
    assert "triptych_rpc_duration" in received.metrics


async def get(host: str, port: int, path: str) -> tuple[str, str]:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


async def test_the_metrics_endpoint_on_a_unix_socket_is_private(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    daemon = start(f'[metrics]\naddress = "unix:{path}"\n')
    assert path.stat().st_mode & 0o777 == 0o600
    await asyncio.to_thread(daemon.stop)
    assert not path.exists()


async def test_a_unix_socket_in_use_is_waited_for_and_nobody_takes_anothers(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.sock"
    config = f'[metrics]\naddress = "unix:{path}"\n'
    first, second = start(config), start(config, name="b")
    assert any("metrics are not served yet" in line["message"] for line in second.lines())
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert "process_start_time_seconds" in (await reader.read()).decode()
    writer.close()
    first.process.kill()  # leaves its socket
    first.process.wait()
    await asyncio.to_thread(second.wait_for, "serving metrics")
    third = start(config, name="c")
    path.unlink()  # by hand: what comes in its place is the third's
    await asyncio.to_thread(third.wait_for, "serving metrics")
    assert await asyncio.to_thread(second.stop) == 0
    assert path.is_socket()
    assert await asyncio.to_thread(third.stop) == 0
    assert not path.exists()


@pytest.mark.parametrize("address", ["127.0.0.1:notaport", "127.0.0.1", "foo", ":65536"])
def test_a_metrics_address_that_is_none_is_named(start: Start, address: str) -> None:
    daemon = start(f'[metrics]\naddress = "{address}"\n', wait=False)
    assert daemon.process.wait(timeout=60 * PATIENCE) == 78
    expected = f"expected host:port, [address]:port or unix:/path, got '{address}'"
    assert f"{daemon.config}: `metrics.address`: {expected}" in daemon.text()


def test_a_metrics_address_that_this_machine_does_not_have_is_named(start: Start) -> None:
    daemon = start('[metrics]\naddress = "192.0.2.1:9"\n', wait=False)
    assert daemon.process.wait(timeout=60 * PATIENCE) == 1
    assert "metrics.address '192.0.2.1:9' cannot be served" in daemon.lines()[-1]["message"]


async def test_an_address_in_use_is_waited_for_and_left_when_the_daemon_stops(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        daemon = start(f'[metrics]\naddress = "127.0.0.1:{port}"\n')
        assert any("metrics are not served yet" in line["message"] for line in daemon.lines())
    told = await asyncio.to_thread(daemon.wait_for, "serving metrics")
    assert told["address"] == f"127.0.0.1:{port}"
    assert await asyncio.to_thread(daemon.stop) == 0


async def test_metrics_are_served_while_a_stop_waits_and_not_while_a_successor_may_start(
    start: Start, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = f'greeting = "drains"\ngrace_seconds = 3600\n[metrics]\naddress = "127.0.0.1:{port}"\n'
    daemon = start(config)
    channel = connect(str(daemon.socket))
    stub: Any = api_pb2_grpc.ImageServiceStub(channel)
    request = api_pb2.RemoveImageRequest(image=api_pb2.ImageSpec(image="3600"))
    slow = asyncio.ensure_future(stub.RemoveImage(request))
    stream = stub.StreamImages(api_pb2.StreamImagesRequest())
    await stream.read()
    await asyncio.to_thread(daemon.wait_for, "sleeping")
    daemon.process.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.aio.AioRpcError):  # the stop has begun
        await stream.read()
    head, _ = await get("127.0.0.1", port, "/metrics")
    assert head.startswith("HTTP/1.1 200 OK")
    slow.cancel()
    await asyncio.to_thread(daemon.wait_for, "draining")
    with pytest.raises(ConnectionRefusedError):
        await get("127.0.0.1", port, "/metrics")
    second = start(config)
    assert any(line["message"] == "serving metrics" for line in second.lines())
    await channel.close()


async def test_an_instance_can_have_an_address_of_its_own(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "own.sock"
    start('[metrics]\naddress = "127.0.0.1:1"\n', env={"TRIPTYCH_METRICS_ADDRESS": f"unix:{path}"})
    assert path.is_socket()


def test_nothing_is_imported_while_telemetry_is_off() -> None:
    code = (
        "import sys, triptych_service\n"
        "from triptych_service.telemetry import start\n"
        "start('n', 'v', triptych_service.ServiceSettings(), triptych_service.Metrics())\n"
        "bad = ('opentelemetry', 'prometheus_client', 'grpc_reflection.', 'grpc_health.', 'difflib')\n"
        "print([name for name in sys.modules if name.startswith(bad)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (True, False)),
        ({"OTEL_SDK_DISABLED": "true"}, (False, False)),
        ({"OTEL_TRACES_EXPORTER": "none"}, (False, False)),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, (True, True)),
    ],
)
def test_the_environment_wins(environment: dict[str, str], expected: tuple[bool, bool]) -> None:
    settings = ServiceSettings(telemetry=TelemetrySettings(endpoint="http://x:4317"))
    wants = wanted(settings, environment)
    assert (wants.traces, wants.otlp_metrics) == expected


def test_resource_attributes_of_the_environment_win(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TelemetrySettings(resource={"cluster": "file", "zone": "a", "service.name": "file"})
    own = telemetry._resource("triptych-sample", "1", settings).attributes
    assert (own["cluster"], own["zone"], own["service.name"]) == ("file", "a", "file")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "cluster=variable,host.name=h,service.name=n")
    won = telemetry._resource("triptych-sample", "1", settings).attributes
    assert (won["cluster"], won["zone"]) == ("variable", "a")
    assert (won["host.name"], won["service.name"], won["service.namespace"]) == ("h", "n", "triptych")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "named")
    assert telemetry._resource("triptych-sample", "1", settings).attributes["service.name"] == "named"


def test_off_by_default() -> None:
    assert wanted(ServiceSettings(), {}).nothing
    assert not wanted(ServiceSettings(metrics=MetricsSettings(address=":9")), {}).nothing
    with span("nothing", key="value") as step:
        step.set("more", 1)
        step.event("moment")
    assert span("a") is span("b")
    assert tracing.recorder() is None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-b7ad6b7169203331",
        f"00-{TRACE}-b7ad6b7169203331-01-extra",
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b716920333g-01",
    ],
)
def test_a_traceparent_that_is_not_one_is_ignored(header: str) -> None:
    assert TraceContext.parse(header) is None


def test_traceparent_round_trip() -> None:
    header = f"00-{TRACE}-b7ad6b7169203331-01"
    context = TraceContext.parse(header)
    assert context is not None
    assert (context.sampled, context.header) == (True, header)
    assert TraceContext.parse(f"cc-{TRACE}-b7ad6b7169203331-00-what") is not None
    fresh = TraceContext.parse(TraceContext.new().header)
    assert fresh is not None and not fresh.sampled


def test_instruments_without_a_backend_do_nothing_and_names_are_unique() -> None:
    metrics = Metrics()
    counter = metrics.counter("triptych_x", "X.")
    counter.add(1, kind="a")
    metrics.histogram("triptych_y", "Y.").observe(0.1)
    assert not metrics.recording
    with pytest.raises(ValueError, match="triptych_x is declared twice"):
        metrics.counter("triptych_x", "X.")
    assert [i.name for i in metrics.instruments] == ["triptych_x", "triptych_y"]


async def test_tracing_is_turned_on_and_off_by_a_reload(
    start: Start, collector: tuple[Collector, str]
) -> None:
    received, endpoint = collector
    peer = start(name="peer")
    daemon = start(f'peer = "{peer.socket}"')
    plain = daemon.config.read_text()
    await list_images(daemon.socket, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    daemon.config.write_text(f'{plain}\n[telemetry]\nendpoint = "{endpoint}"\n')
    daemon.process.send_signal(signal.SIGHUP)
    await asyncio.to_thread(daemon.wait_for, "recording traces")
    await list_images(daemon.socket, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    assert not received.spans, "still held back"
    daemon.config.write_text(plain)
    daemon.process.send_signal(signal.SIGHUP)
    deadline = asyncio.get_running_loop().time() + 10
    while not received.spans and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
    outer = received.named("runtime.v1.ImageService/ListImages")[1]
    assert outer.parent_span_id.hex() == "b7ad6b7169203331"
    await list_images(daemon.socket)
    assert await asyncio.to_thread(daemon.stop) == 0
    received.named("runtime.v1.ImageService/ListImages")
