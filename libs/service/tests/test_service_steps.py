"""Steps as metrics: told with and without recorded spans, and at no cost when off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from triptych_service import tracing
from triptych_service._recording import RecordedSpan, Recorder, Sampling
from triptych_service.tracing import span


@pytest.fixture
def steps() -> Iterator[list[tuple[str, float, bool]]]:
    told: list[tuple[str, float, bool]] = []
    tracing.measure(lambda name, seconds, ok: told.append((name, seconds, ok)))
    yield told
    tracing.measure(None)
    tracing.install(None)


def test_off_costs_no_object() -> None:
    assert span("step") is span("other")


def test_success_and_failure_are_told(steps: list[tuple[str, float, bool]]) -> None:
    with span("cni.add", plugin="bridge") as step:
        step.set("interface", "eth0")
        step.event("done")
    with pytest.raises(ValueError), span("cni.del"):
        raise ValueError
    assert [(name, ok) for name, _, ok in steps] == [("cni.add", True), ("cni.del", False)]
    assert all(0 <= seconds < 5 for _, seconds, _ in steps)


def test_a_recorded_span_is_measured_too(steps: list[tuple[str, float, bool]]) -> None:
    recorded: list[RecordedSpan] = []
    tracing.install(Recorder(Sampling(), recorded.append))
    with span("outer"), span("inner") as inner:
        inner.set("key", "value")
    inner_span, outer_span = recorded
    assert inner_span.parent == outer_span.identity
    assert inner_span.attributes == {"key": "value"}
    assert [name for name, _, _ in steps] == ["inner", "outer"]
