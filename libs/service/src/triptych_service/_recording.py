"""Recorded spans, made as cheaply as Python can; imported only once recording is on.

OpenTelemetry's SDK spends 40 µs of a daemon's only thread on a span, and as much again to encode it, most of
it on what this program never uses: contexts, links, processors, a lock a span. These spans are a record of
slots that is filled on the way and encoded later, on another thread (`_export`). Identity, sampling, limits
and the wire format are as the specification wants.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType

from triptych_service import tracing
from triptych_service.tracing import AttributeValue, Span, TraceContext


class Kind(enum.IntEnum):
    """What a span is of; the numbers are OTLP's."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which traces are recorded.

    :param ratio: the share of traces, decided by the trace's ID, so that all daemons decide alike.
    :param follow: whether the caller's decision counts where there is one.
    """

    ratio: float = 1.0
    follow: bool = True

    def of(self, trace_id: str, parent: TraceContext | None) -> bool:
        """Whether a trace that comes in, or begins, is recorded."""
        if parent is not None and self.follow:
            return parent.sampled
        return int(trace_id[16:], 16) < self.ratio * (1 << 64)


class RecordedSpan:
    """A span that is kept; its identity becomes `tracing.current` while it is open.

    :ivar started: nanoseconds since the epoch; as `ended`.
    :ivar failure: what went wrong, None when nothing did.
    """

    __slots__ = (
        "_recorder",
        "_token",
        "attributes",
        "ended",
        "events",
        "failure",
        "identity",
        "kind",
        "name",
        "parent",
        "started",
    )

    def __init__(
        self, recorder: Recorder, name: str, attributes: dict[str, AttributeValue], kind: Kind
    ) -> None:
        self._recorder = recorder
        self._token: Token[TraceContext | None] | None = None
        self.name = name
        self.attributes = attributes
        self.kind = kind
        self.events: list[tuple[str, int, dict[str, AttributeValue]]] = []
        self.failure: str | None = None
        self.parent: TraceContext | None = None
        self.started = self.ended = 0

    def set(self, key: str, value: AttributeValue) -> None:
        self.attributes[key] = value

    def event(self, name: str, **attributes: AttributeValue) -> None:
        self.events.append((name, time.time_ns(), attributes))

    def __enter__(self) -> Span:
        parent = self.parent = tracing.current.get()
        self.identity = self._recorder.identify(parent)
        self._token = tracing.current.set(self.identity)
        self.started = time.time_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish(None if error is None else f"{type(error).__name__}: {error}"[:1024])

    def finish(self, failure: str | None) -> None:
        """End the span; `failure` describes what went wrong, None when nothing did."""
        if self._token is None:
            return
        self.ended = time.time_ns()
        tracing.leave(self._token)
        self._token = None
        self.failure = failure
        if self.identity.sampled:
            self._recorder.take(self)


class Recorder:
    """Makes spans.

    :param take: gets each finished span of a recorded trace, on any thread; must return at once.
    """

    __slots__ = ("_sampling", "take")

    def __init__(self, sampling: Sampling, take: Callable[[RecordedSpan], None]) -> None:
        self._sampling = sampling
        self.take = take

    def span(self, name: str, attributes: dict[str, AttributeValue]) -> RecordedSpan:
        """A step; `attributes` becomes the span's own."""
        return RecordedSpan(self, name, attributes, Kind.INTERNAL)

    def server(self, method: str) -> RecordedSpan:
        """The span of an RPC being served, named and attributed as the RPC conventions want.

        :param method: the full method, `/package.Service/Method`.
        """
        return RecordedSpan(self, method[1:], _rpc(method), Kind.SERVER)

    def client(self, method: str) -> RecordedSpan:
        """The span of an RPC being called."""
        return RecordedSpan(self, method[1:], _rpc(method), Kind.CLIENT)

    def identify(self, parent: TraceContext | None) -> TraceContext:
        """The identity of a new span below `parent`."""
        if parent is None:
            random = os.urandom(24).hex()
            return TraceContext(random[:32], random[32:], self._sampling.of(random[:32], None))
        # Within a daemon the decision was made at its edge.
        sampled = self._sampling.of(parent.trace_id, parent) if parent.remote else parent.sampled
        return TraceContext(parent.trace_id, os.urandom(8).hex(), sampled, parent.state)


def _rpc(method: str) -> dict[str, AttributeValue]:
    service, _, name = method[1:].rpartition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
