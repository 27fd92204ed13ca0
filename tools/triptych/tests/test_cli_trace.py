"""`triptych trace`: the collector with a real exporter, the tree, and the switch."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from rich.console import Console
from triptych_cli.context import DaemonName
from triptych_cli.doctor import configured
from triptych_cli.trace.collector import Collector
from triptych_cli.trace.model import Span
from triptych_cli.trace.tree import render, walk


def _drawn(spans: list[Span], **options: bool) -> list[str]:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(render(spans, **options))
    return console.export_text().splitlines()


def _span(name: str, parent: str, start: int, end: int, **more: Any) -> Span:
    return Span("t", name, parent, name, "triptych-runtime", start * 10**6, end * 10**6, **more)


def test_a_tree_is_in_order_of_time_with_guides() -> None:
    spans = [
        _span("start", "root", 50, 90),
        _span("root", "", 0, 100),
        _span(
            "create",
            "root",
            10,
            40,
            error="no space left",
            attributes={"container.id": "c1", "rpc.system": "grpc"},
        ),
        _span("mount", "create", 15, 20),
        _span("late", "unknown parent", 95, 99),
    ]
    assert [(node.guide, node.span.name) for node in walk(spans)] == [
        ("", "root"),
        ("├─ ", "create"),
        ("│  └─ ", "mount"),
        ("└─ ", "start"),
        ("", "late"),
    ]
    lines = _drawn(spans)
    assert "no space left" in lines[3]
    assert lines[1].split()[1:6] == ["triptych-runtime", "0", "µs", "100.0", "ms"]
    assert lines[1].count("━") == 32
    assert any("container.id = c1" in line for line in _drawn(spans, attributes=True))
    assert not any("rpc.system" in line for line in _drawn(spans, attributes=True))


def test_a_span_that_is_its_own_parent_does_not_loop() -> None:
    assert [node.span.name for node in walk([_span("odd", "odd", 0, 1)])] == ["odd"]
    assert _drawn([]) == ["no span has arrived"]


def test_the_collector_takes_what_a_real_exporter_sends() -> None:
    with Collector() as collector:
        provider = TracerProvider(resource=Resource.create({"service.name": "triptych-image"}))
        exporter = OTLPSpanExporter(endpoint=collector.endpoint, insecure=True)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = provider.get_tracer("test")
        parent = TraceContextTextMapPropagator().extract({"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"})
        with tracer.start_as_current_span("outer", context=parent, attributes={"layers": 3, "cached": True}):
            with pytest.raises(ValueError), tracer.start_as_current_span("inner"):
                raise ValueError("broken")
        spans = collector.settle("1" * 32, quiet=0.2, deadline=10)
        provider.shutdown()
    outer = next(span for span in spans if span.name == "outer")
    inner = next(span for span in spans if span.name == "inner")
    assert (outer.parent, outer.service) == ("2" * 16, "triptych-image")
    assert outer.attributes == {"layers": 3, "cached": True}
    assert inner.parent == outer.id
    assert inner.error is not None and "broken" in inner.error
    assert 0 <= inner.seconds <= outer.seconds


def test_settle_ends_at_its_deadline() -> None:
    with Collector() as collector:
        assert collector.settle("none", quiet=0.1, deadline=0.3) == []


@pytest.fixture
def reloads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sent: list[int] = []

    def kill(pid: int, number: int) -> None:
        assert number == signal.SIGHUP
        sent.append(pid)

    monkeypatch.setattr("os.kill", kill)
    monkeypatch.setattr("triptych_cli.trace.command._DEADLINE", 0.3)
    return sent


def test_a_request_is_traced_and_the_drop_ins_are_gone_after(
    node: Any, tmp_path: Path, reloads: list[int]
) -> None:
    config = tmp_path / "etc"
    during: list[str] = []
    node.runtime.on_status = lambda: during.extend(path.read_text() for path in config.rglob("*.toml"))
    done = node.run("trace", "--config-dir", str(config), "call", "runtime.v1.RuntimeService/Status", "{}")
    assert "runtime.v1.RuntimeService/Status" in done.out
    assert done.status == 1 and "no daemon sent a span" in done.err, "the fakes send none"
    assert len(during) == 3 and all('endpoint = "http://127.0.0.1:' in text for text in during)
    assert len(reloads) == 6
    assert not config.exists()
    version, trace, parent, flags = node.runtime.metadata["traceparent"].split("-")
    assert (version, flags, len(trace), len(parent)) == ("00", "01", 32, 16)


def test_every_streaming_instance_reloads(node: Any, tmp_path: Path, reloads: list[int]) -> None:
    node.add_streaming(4194401)
    node.add_streaming(4194402)
    node.run("trace", "--config-dir", str(tmp_path / "etc"), "status")
    assert sorted(reloads[:4]) == [os.getpid(), os.getpid(), 4194401, 4194402]
    assert len(reloads) == 8


def test_tracing_wins_over_other_drop_ins_and_leaves_their_directories(
    node: Any, tmp_path: Path, reloads: list[int]
) -> None:
    config = tmp_path / "etc"
    (config / "image.toml.d").mkdir(parents=True)
    (config / "runtime.toml.d").mkdir()
    telemetry = config / "runtime.toml.d/telemetry.toml"
    telemetry.write_text('[telemetry]\nendpoint = "http://collector.test:4317"\nsample_ratio = 0.05\n')
    during: list[dict[str, Any]] = []
    node.runtime.on_status = lambda: during.append(configured.read(config)[DaemonName.RUNTIME])
    node.run("trace", "--config-dir", str(config), "status")
    assert during[0]["telemetry"]["endpoint"].startswith("http://127.0.0.1:")
    assert during[0]["telemetry"]["sample_ratio"] == 1.0
    left = {str(path.relative_to(config)) for path in config.rglob("*")}
    assert left == {"image.toml.d", "runtime.toml.d", "runtime.toml.d/telemetry.toml"}


def test_the_request_waits_until_every_daemon_has_reloaded(
    node: Any, tmp_path: Path, reloads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def finished(*_: object) -> int:
        """One reload is finished some questions after the signals."""
        asked.append(len(reloads))
        return 1 if asked.count(len(reloads)) > 5 else 0

    seen: list[int] = []
    monkeypatch.setattr("triptych_cli.trace.switch.reloads", finished)
    node.runtime.on_status = lambda: seen.append(len(asked))
    node.run("trace", "--config-dir", str(tmp_path / "etc"), "status")
    assert asked[:3] == [0, 0, 0], "counted before the signals"
    assert seen and seen[0] >= 3 + 5


def test_a_pod_is_run_and_removed(node: Any, tmp_path: Path, reloads: list[int]) -> None:
    file = tmp_path / "pod.json"
    file.write_text(json.dumps({"metadata": {"name": "traced", "namespace": "n", "uid": "u"}}))
    done = node.run("trace", "--config-dir", str(tmp_path / "etc"), "run", str(file), "-o", "json")
    assert node.runtime.seen == ["run traced", "stop d", "remove d"]
    names = [span["name"] for span in json.loads(done.out)]
    assert names == ["triptych trace run", "RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]


def test_wrong_requests_are_named(node: Any, tmp_path: Path, reloads: list[int]) -> None:
    where = ("trace", "--config-dir", str(tmp_path / "etc"), "call")
    refused = node.run(*where, "no.such.Service/X")
    assert "no service no.such.Service" in refused.err
    assert refused.out == "", "no tree of a request that was not made"
    assert "has no method Nothing" in node.run(*where, "runtime.v1.RuntimeService/Nothing").err
    wrong = node.run(*where, "runtime.v1.RuntimeService/Status", '{"nonsense": 1}')
    assert "the body is no runtime.v1.StatusRequest" in wrong.err
