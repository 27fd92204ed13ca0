"""The OpenTelemetry side of tracing; imported only once recording is on.

In place of opentelemetry-instrumentation-grpc, which would cost 2 MB more in each daemon, marks every answer
but OK as a failed span, and has no part in logs and metrics.
"""

from __future__ import annotations

from contextvars import Token
from types import TracebackType

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from triptych_service import tracing
from triptych_service.tracing import AttributeValue, Span, TraceContext


class RecordedSpan:
    """A span that OpenTelemetry records; its identity becomes `tracing.current` while it is open."""

    __slots__ = ("_attributes", "_kind", "_name", "_span", "_token", "_tracer")

    def __init__(
        self,
        tracer: trace.Tracer,
        name: str,
        attributes: dict[str, AttributeValue],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes
        self._kind = kind
        self._span: trace.Span = trace.INVALID_SPAN
        self._token: Token[TraceContext | None] | None = None

    def set(self, key: str, value: AttributeValue) -> None:
        self._span.set_attribute(key, value)

    def event(self, name: str, **attributes: AttributeValue) -> None:
        self._span.add_event(name, attributes)

    def __enter__(self) -> Span:
        parent = _context(tracing.current.get())
        self._span = self._tracer.start_span(
            self._name, context=parent, kind=self._kind, attributes=self._attributes
        )
        self._token = tracing.current.set(_identity(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish(None if error is None else f"{type(error).__name__}: {error}"[:1024])

    def finish(self, failure: str | None) -> None:
        """End the span; `failure` describes what went wrong, None when nothing did."""
        if self._token is not None:
            tracing.leave(self._token)
            self._token = None
        if failure is not None:
            self._span.set_status(Status(StatusCode.ERROR, failure))
        self._span.end()


def server_span(tracer: trace.Tracer, method: str) -> RecordedSpan:
    """The span of an RPC being served, named and attributed as the RPC conventions want.

    :param method: the full method, `/package.Service/Method`.
    """
    return RecordedSpan(tracer, method[1:], _rpc(method), SpanKind.SERVER)


def client_span(tracer: trace.Tracer, method: str) -> RecordedSpan:
    """The span of an RPC being called."""
    return RecordedSpan(tracer, method[1:], _rpc(method), SpanKind.CLIENT)


def _rpc(method: str) -> dict[str, AttributeValue]:
    service, _, name = method[1:].rpartition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


def _context(identity: TraceContext | None) -> Context | None:
    if identity is None:
        return None
    remote = SpanContext(
        int(identity.trace_id, 16),
        int(identity.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if identity.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([identity.state]) if identity.state else None,
    )
    return trace.set_span_in_context(NonRecordingSpan(remote))


def _identity(span: trace.Span) -> TraceContext:
    context = span.get_span_context()
    state = context.trace_state.to_header() if context.trace_state else ""
    return TraceContext(
        f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled, state
    )
