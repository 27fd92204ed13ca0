"""The end of telemetry: what is held back is sent, and a collector that is away holds nothing up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from triptych_service._export import Exporter
from triptych_service._metric_export import MetricExporter
from triptych_service.telemetry import Readings, Telemetry


class Refusing(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """A collector that asks to come again, which exporters do for some seconds."""

    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self) -> None:
        self.asked = 0

    def Export(self, request: Any, context: Any) -> Any:
        self.asked += 1
        context.abort(self.code, "not now")


@pytest.fixture
def refusing(serve_otlp: Callable[[Any], str]) -> tuple[Refusing, dict[str, Any]]:
    """The collector, and the arguments of an exporter to it."""
    servicer = Refusing()
    return servicer, {"endpoint": serve_otlp(servicer), "insecure": True}


def test_no_attempt_is_repeated_at_the_end(refusing: tuple[Refusing, dict[str, Any]]) -> None:
    collector, arguments = refusing
    spans, metrics = Exporter(Resource({}), **arguments), MetricExporter(**arguments)
    spans.end()
    metrics.end()
    assert not spans.send([])
    assert metrics.export(MetricsData([])) is MetricExportResult.FAILURE
    assert collector.asked == 2


def test_metrics_that_failed_before_are_not_tried_at_the_end(
    refusing: tuple[Refusing, dict[str, Any]],
) -> None:
    collector, arguments = refusing
    collector.code = grpc.StatusCode.PERMISSION_DENIED  # no reason for a second attempt
    exporter = MetricExporter(**arguments, timeout=60)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    provider.get_meter("x").create_counter("x").add(1)
    provider.force_flush()
    asked = collector.asked
    assert asked
    Readings(provider, exporter).shutdown(60)
    assert collector.asked == asked


def test_spans_and_metrics_end_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=60)  # broken where one waits for the other to end
    ended: list[str] = []

    def part(name: str) -> Any:
        def shutdown(seconds: float) -> None:
            together.wait()
            ended.append(name)

        return SimpleNamespace(shutdown=shutdown)

    Telemetry(_traces=part("traces"), _metrics=part("metrics")).shutdown()
    assert sorted(ended) == ["metrics", "traces"]


def test_a_provider_that_fails_to_end_does_not_fail_the_daemon() -> None:
    def shutdown(timeout_millis: float) -> None:
        raise RuntimeError(f"not within {timeout_millis}")

    provider: Any = SimpleNamespace(shutdown=shutdown)
    Readings(provider, None).shutdown(1)
