"""An OTLP collector in this process, and the tree of the spans that it was sent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

_SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Span:
    """One recorded step.

    :param service: the process that took it.
    :param start: Unix time in nanoseconds, as `end`.
    :param failure: what went wrong, empty when nothing did.
    """

    trace: str
    identity: str
    parent: str
    service: str
    name: str
    kind: str
    start: int
    end: int
    failure: str
    attributes: dict[str, Any]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans; ask for those of a trace when the daemons have stopped, as they send on the way out."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def Export(self, request: Any, context: Any) -> Any:
        """OTLP's one RPC."""
        found = []
        for resource in request.resource_spans:
            about = {entry.key: _value(entry.value) for entry in resource.resource.attributes}
            for scope in resource.scope_spans:
                found += [_span(str(about.get("service.name", "?")), span) for span in scope.spans]
        with self._lock:
            self._spans += found
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, trace: str) -> list[Span]:
        """The spans of a trace, by their start."""
        with self._lock:
            return sorted((s for s in self._spans if s.trace == trace), key=lambda span: span.start)

    def wait(self, trace: str, name: str, seconds: float = 10.0) -> list[Span]:
        """The spans of a trace once one called `name` is among them."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not any(s.name == name for s in self.spans(trace)):
            time.sleep(0.05)
        return self.spans(trace)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect on a port of loopback, told by `endpoint`, until the context ends."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(_SETTLE_SECONDS).wait()


def new_trace() -> tuple[str, tuple[tuple[str, str], ...]]:
    """A fresh trace: its ID, and the gRPC metadata that puts a call into it."""
    trace, parent = os.urandom(16).hex(), os.urandom(8).hex()
    return trace, (("traceparent", f"00-{trace}-{parent}-01"),)


def draw(spans: list[Span]) -> list[str]:
    """The tree of spans, one line each: when it began, how long it took, whose it is."""
    if not spans:
        return ["  (no spans)"]
    known = {span.identity for span in spans}
    origin = spans[0].start
    children: dict[str, list[Span]] = {}
    for span in spans:
        children.setdefault(span.parent if span.parent in known else "", []).append(span)
    lines = ["  start       took  step"]
    whole = max(span.end for span in spans) - origin
    lines.append(f"{0:>7.1f} {whole / 1e6:>7.1f} ms  client: the calls that start the pod")
    for root in children.get("", []):
        _draw(root, children, origin, "  ", lines)
    return lines


def _draw(span: Span, children: dict[str, list[Span]], origin: int, indent: str, lines: list[str]) -> None:
    begun, took = (span.start - origin) / 1e6, (span.end - span.start) / 1e6
    failed = f"  FAILED: {span.failure}" if span.failure else ""
    service = span.service.removeprefix("triptych-")
    lines.append(f"{begun:>7.1f} {took:>7.1f} ms  {indent}{service}: {span.name}{_about(span)}{failed}")
    for child in children.get(span.identity, []):
        _draw(child, children, origin, indent + "  ", lines)


def _about(span: Span) -> str:
    """The attributes that say what the step was about; those of RPCs say nothing new."""
    told = [f"{k}={str(v)[:24]}" for k, v in span.attributes.items() if not k.startswith("rpc.")]
    return f" [{', '.join(told)}]" if told else ""


def _span(service: str, span: Any) -> Span:
    return Span(
        trace=span.trace_id.hex(),
        identity=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        service=service,
        name=span.name,
        kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        failure=span.status.message or "error" if span.status.code == 2 else "",
        attributes={entry.key: _value(entry.value) for entry in span.attributes},
    )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None
