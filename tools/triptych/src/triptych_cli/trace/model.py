"""A span, as little of it as a drawing needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """One finished piece of work.

    :param parent: "" for the first one of a trace.
    :param start: Unix time in nanoseconds, as `end`.
    :param error: what went wrong, None when nothing did.
    """

    trace: str
    id: str
    parent: str
    name: str
    service: str
    start: int
    end: int
    error: str | None = None
    attributes: dict[str, Value] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """The spans of one OTLP export."""
    for resource in request.resource_spans:
        service = ""
        for entry in resource.resource.attributes:
            if entry.key == "service.name":
                service = entry.value.string_value
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield _span(span, service)


def _span(span: WireSpan, service: str) -> Span:
    failed = span.status.code == 2
    return Span(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        service,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        (span.status.message or "failed") if failed else None,
        {entry.key: _value(entry.value) for entry in span.attributes},
    )


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "int_value", "double_value", "bool_value"):
        found: Value = getattr(value, kind)
        return found
    return str(value).strip()
