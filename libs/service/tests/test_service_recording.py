"""Spans as they are kept, sampled, encoded and sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanLimits
from triptych_service import TelemetrySettings, telemetry, tracing
from triptych_service._export import Batches, encode
from triptych_service._recording import Kind, RecordedSpan, Recorder, Sampling
from triptych_service.telemetry import sampling
from triptych_service.tracing import TraceContext, span

LOW, HIGH = "0" * 16 + "1" * 16, "f" * 32
NO_LIMITS = SpanLimits()


@pytest.fixture
def recorded() -> Iterator[list[RecordedSpan]]:
    found: list[RecordedSpan] = []
    tracing.install(Recorder(Sampling(), found.append))
    yield found
    tracing.install(None)


def test_a_span_on_the_wire(recorded: list[RecordedSpan]) -> None:
    caller = TraceContext.parse(f"00-{LOW}-b7ad6b7169203331-01", "vendor=1")
    token = tracing.current.set(caller)
    recorder = tracing.recorder()
    assert recorder is not None
    with (
        pytest.raises(ValueError),
        recorder.server("/runtime.v1.RuntimeService/Version"),
        span("step", names=["a", "b"], share=0.5, whole=3, yes=True) as step,
    ):
        step.event("moment", of="it")
        raise ValueError("no")
    tracing.leave(token)
    inner, outer = (encode(found, NO_LIMITS) for found in recorded)
    assert (outer.name, outer.kind) == ("runtime.v1.RuntimeService/Version", int(Kind.SERVER))
    assert outer.trace_id.hex() == inner.trace_id.hex() == LOW
    assert outer.parent_span_id.hex() == "b7ad6b7169203331"
    assert inner.parent_span_id == outer.span_id
    assert outer.trace_state == inner.trace_state == "vendor=1"
    assert (outer.flags, inner.flags) == (0x300, 0x100)
    assert outer.start_time_unix_nano <= inner.start_time_unix_nano <= inner.end_time_unix_nano
    assert inner.end_time_unix_nano <= outer.end_time_unix_nano
    assert (inner.status.code, inner.status.message) == (2, "ValueError: no")
    values = {entry.key: entry.value for entry in inner.attributes}
    assert [entry.string_value for entry in values["names"].array_value.values] == ["a", "b"]
    assert (values["share"].double_value, values["whole"].int_value) == (0.5, 3)
    assert values["yes"].WhichOneof("value") == "bool_value"
    assert inner.events[0].name == "moment"
    assert inner.start_time_unix_nano <= inner.events[0].time_unix_nano <= inner.end_time_unix_nano


def test_limits_of_the_environment(recorded: list[RecordedSpan]) -> None:
    with span("step", one="long text", two="x", three="y"):
        pass
    limits = SpanLimits(max_span_attributes=2, max_span_attribute_length=4)
    wire = encode(recorded[0], limits)
    assert {entry.key: entry.value.string_value for entry in wire.attributes} == {"one": "long", "two": "x"}
    assert wire.dropped_attributes_count == 1


def test_the_callers_decision_holds_for_all_below(recorded: list[RecordedSpan]) -> None:
    token = tracing.current.set(TraceContext.parse(f"00-{LOW}-b7ad6b7169203331-00"))
    with span("outer"), span("inner"):
        identity = tracing.current.get()
        assert identity is not None
        assert (identity.trace_id, identity.sampled) == (LOW, False)
    tracing.leave(token)
    assert recorded == []


@pytest.mark.parametrize(
    ("environment", "ratio", "expected"),
    [
        ({}, 0.5, Sampling(0.5)),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, 0.5, Sampling(1.0, follow=False)),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, 0.5, Sampling(0.0, follow=False)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, 0.5, Sampling(0.0)),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
            0.5,
            Sampling(0.25, follow=False),
        ),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "x"},
            0.5,
            Sampling(1.0),
        ),
        ({"OTEL_TRACES_SAMPLER": "wrong"}, 0.5, Sampling(1.0)),
    ],
)
def test_the_sampler(environment: dict[str, str], ratio: float, expected: Sampling) -> None:
    assert sampling(TelemetrySettings(sample_ratio=ratio), environment) == expected


def test_a_share_of_traces() -> None:
    unsampled = TraceContext(HIGH, "1" * 16, sampled=False, remote=True)
    assert Sampling(0.5).of(LOW, None)
    assert not Sampling(0.5).of(HIGH, None)
    assert not Sampling(1.0).of(HIGH, unsampled)
    assert Sampling(1.0, follow=False).of(HIGH, unsampled)
    assert not Sampling(0.0).of("0" * 32, None)


def _spans(count: int) -> list[RecordedSpan]:
    made: list[RecordedSpan] = []
    recorder = Recorder(Sampling(), made.append)
    for number in range(count):
        with recorder.span(str(number), {}):
            pass
    return made


def test_spans_are_sent_together_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3")
    sent: list[list[str]] = []
    full = threading.Event()

    def send(batch: list[RecordedSpan]) -> bool:
        sent.append([found.name for found in batch])
        full.set()
        return True

    batches = Batches(send)
    spans = _spans(5)
    for found in spans[:3]:
        batches.take(found)
    assert full.wait(60), "a full batch does not wait for its time"
    for found in spans[3:]:
        batches.take(found)
    batches.shutdown(60)
    assert sent == [["0", "1", "2"], ["3", "4"]]


def test_a_collector_that_is_stuck_or_fails_costs_spans_and_no_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")
    stuck, asked = threading.Event(), threading.Event()

    def send(batch: list[RecordedSpan]) -> bool:
        asked.set()
        stuck.wait(60)
        raise ConnectionError

    batches = Batches(send)
    spans = _spans(6)
    for found in spans[:2]:
        batches.take(found)
    assert asked.wait(60)
    for found in spans[2:]:
        batches.take(found)
    stuck.set()
    batches.shutdown(60)
    said = {record.message: vars(record)["spans"] for record in caplog.records}
    assert said == {"spans are lost": 2, "the collector is too slow; spans are lost": 2}


def test_a_stuck_collector_holds_up_no_stop() -> None:
    stuck, given_up = threading.Event(), threading.Event()
    batches = Batches(lambda batch: stuck.wait(60))
    batches.take(_spans(1)[0])
    exporter: Any = SimpleNamespace(end=lambda: None, shutdown=given_up.set)
    telemetry.Traces(batches, exporter).shutdown(0.1)
    assert given_up.is_set() and not stuck.is_set()
    stuck.set()


def test_a_collector_known_to_be_away_is_not_tried_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    tried: list[int] = []
    failed = threading.Event()

    def send(batch: list[RecordedSpan]) -> bool:
        tried.append(len(batch))
        failed.set()
        return False

    batches = Batches(send)
    first, *rest = _spans(4)
    batches.take(first)
    assert failed.wait(60)
    monkeypatch.setattr(batches, "_size", 100)  # the rest waits for its time
    for found in rest:
        batches.take(found)
    batches.shutdown(60)
    assert tried == [1]
