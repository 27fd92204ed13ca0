"""Finished spans on their way to a collector: held back, encoded and sent on a thread of its own.

Encoding holds the interpreter's lock, so it lets go of it every few spans: what the daemon serves meanwhile
waits for half a millisecond at most. The exporter's connection, its TLS, headers, compression and repeated
attempts are OpenTelemetry's own.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as WireResource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.export import SpanExportResult

from triptych_service._recording import RecordedSpan

log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Spans encoded before other threads get a turn."""
_KNOWS_PARENT = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE_PARENT = _KNOWS_PARENT | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class Exporter(OTLPSpanExporter):
    """OpenTelemetry's exporter, for the spans of `_recording`.

    :param resource: what the spans are of.
    """

    def __init__(self, resource: Resource, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._of = WireResource(attributes=_attributes(resource.attributes, None))
        self._schema = resource.schema_url
        self._limits = SpanLimits()

    def send(self, spans: Sequence[Any]) -> bool:
        """Send spans, again if need be; whether they have arrived. Blocks for ten seconds at most."""
        return self.export(spans) is SpanExportResult.SUCCESS

    def end(self) -> None:
        """Repeat no attempt from now on: somebody waits for the end."""
        self._shutdown_in_progress.set()

    def _translate_data(self, data: Sequence[Any]) -> ExportTraceServiceRequest:
        scope = ScopeSpans(scope=InstrumentationScope(name="triptych"))
        for part in range(0, len(data), _AT_ONCE):
            scope.spans.extend([encode(span, self._limits) for span in data[part : part + _AT_ONCE]])
            time.sleep(0)
        spans = ResourceSpans(resource=self._of, scope_spans=[scope], schema_url=self._schema)
        return ExportTraceServiceRequest(resource_spans=[spans])


def encode(span: RecordedSpan, limits: SpanLimits) -> WireSpan:
    """A span as OTLP has it, within the limits of the OTEL_* variables."""
    identity, parent = span.identity, span.parent
    attributes = span.attributes
    most = limits.max_span_attributes
    wire = WireSpan(
        trace_id=bytes.fromhex(identity.trace_id),
        span_id=bytes.fromhex(identity.span_id),
        trace_state=identity.state,
        name=span.name,
        kind=span.kind,  # type: ignore[arg-type]  # the stubs know no numbers here
        start_time_unix_nano=span.started,
        end_time_unix_nano=span.ended,
        attributes=_attributes(attributes, limits.max_span_attribute_length, most),
        flags=_KNOWS_PARENT,
    )
    if most is not None and len(attributes) > most:
        wire.dropped_attributes_count = len(attributes) - most
    if parent is not None:
        wire.parent_span_id = bytes.fromhex(parent.span_id)
        if parent.remote:
            wire.flags = _REMOTE_PARENT
    if span.failure is not None:
        wire.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=span.failure))
    for name, moment, details in span.events[: limits.max_events]:
        wire.events.add(
            name=name, time_unix_nano=moment, attributes=_attributes(details, limits.max_attribute_length)
        )
    return wire


def _attributes(values: Mapping[str, Any], longest: int | None, most: int | None = None) -> list[KeyValue]:
    items = values.items() if most is None else itertools.islice(values.items(), most)
    return [KeyValue(key=key, value=_value(value, longest)) for key, value in items]


def _value(value: Any, longest: int | None) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value if longest is None else value[:longest])
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[_value(entry, longest) for entry in value]))


class Batches:
    """Holds spans back and sends them together, as the OTEL_BSP_* variables say.

    :param send: given a batch, on the thread of this object; may block; tells whether it has arrived.
    """

    def __init__(self, send: Callable[[list[RecordedSpan]], bool]) -> None:
        self._send = send
        self._delay = _number("OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000
        self._most = _number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
        self._size = min(_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512), self._most)
        self._waiting: deque[RecordedSpan] = deque()
        self._lost = 0
        self._closing = self._failing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def take(self, span: RecordedSpan) -> None:
        """Hold a span back; one too many is counted and lost."""
        waiting = self._waiting
        if len(waiting) >= self._most:
            self._lost += 1
            return
        waiting.append(span)
        if len(waiting) == self._size:
            self._wake.set()

    def shutdown(self, seconds: float) -> None:
        """Send what waits; blocks until that is done or fails, or for `seconds`; the rest is lost."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._delay)
            self._wake.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        # A collector that is known to be away does not hold up the end.
        while self._waiting and not (self._closing and self._failing):
            count = min(len(self._waiting), self._size)
            try:
                self._failing = not self._send([self._waiting.popleft() for _ in range(count)])
            except Exception:
                self._failing = True
                log.exception("spans are lost", extra={"spans": count})
        lost, self._lost = self._lost, 0
        if lost:
            log.warning("the collector is too slow; spans are lost", extra={"spans": lost})


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if text.isdigit() and int(text) > 0:
        return int(text)
    if text:
        log.warning("a variable is not a positive number", extra={"variable": variable, "taken": default})
    return default
