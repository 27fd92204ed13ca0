"""Spans and trace identity.

Every RPC has a trace id, the caller's when it sent a `traceparent`, that log lines carry and calls to other
daemons pass on. Recording spans is another matter: it is off until `[telemetry]` or the standard OTEL_*
variables name a collector, and OpenTelemetry is not even imported before that.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from triptych_service._recording import Recorder

AttributeValue = str | bool | int | float | Sequence[str]

TRACEPARENT = "traceparent"
"""The W3C Trace Context header, as gRPC metadata."""
TRACESTATE = "tracestate"
"""Its companion for what vendors add."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The identity of a trace and the caller's span in it, as W3C Trace Context has it.

    :param trace_id: 32 hex digits.
    :param span_id: 16 hex digits.
    :param sampled: whether the caller records the trace.
    :param remote: whether it came from another process.
    """

    trace_id: str
    span_id: str
    sampled: bool = False
    state: str = ""
    remote: bool = False

    @property
    def header(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    @classmethod
    def parse(cls, header: str, state: str = "") -> TraceContext | None:
        """The context in a `traceparent`, or None for one that the specification says to ignore."""
        version, _, rest = header.strip().partition("-")
        parts = rest.split("-")
        if len(version) != 2 or version == "ff" or len(parts) < 3 or (version == "00" and len(parts) > 3):
            return None
        trace_id, span_id, flags = parts[:3]
        if not (_hex(version, 2) and _hex(trace_id, 32) and _hex(span_id, 16) and _hex(flags, 2)):
            return None
        if not (trace_id.strip("0") and span_id.strip("0")):
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & 1), state, remote=True)

    @classmethod
    def new(cls) -> TraceContext:
        """A fresh identity that nobody records, so that log lines of one request belong together."""
        random = os.urandom(24).hex()
        return cls(random[:32], random[32:])


def _hex(text: str, length: int) -> bool:
    return len(text) == length and not text.strip("0123456789abcdef")


current: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)
"""The trace of the request being served, with the innermost recorded span as its span id."""


class Span(Protocol):
    """A step being timed; use as a context manager. An exception that leaves it marks it as failed."""

    def set(self, key: str, value: AttributeValue) -> None:
        """Add an attribute that was not known at the start."""

    def event(self, name: str, **attributes: AttributeValue) -> None:
        """Note a moment within the span."""

    def __enter__(self) -> Span: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class _Off:
    """The span when nothing is recorded: one shared object without state."""

    __slots__ = ()

    def set(self, key: str, value: AttributeValue) -> None:
        pass

    def event(self, name: str, **attributes: AttributeValue) -> None:
        pass

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class _Timed:
    """A span whose duration is a metric too.

    :param inner: the recorded span, or the one that does nothing.
    """

    __slots__ = ("_inner", "_name", "_observe", "_started")

    def __init__(self, observe: Observe, name: str, inner: Span) -> None:
        self._observe = observe
        self._name = name
        self._inner = inner
        self._started = 0.0

    def set(self, key: str, value: AttributeValue) -> None:
        self._inner.set(key, value)

    def event(self, name: str, **attributes: AttributeValue) -> None:
        self._inner.event(name, **attributes)

    def __enter__(self) -> Span:
        self._inner.__enter__()
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._observe(self._name, time.monotonic() - self._started, error is None)
        self._inner.__exit__(kind, error, traceback)


Observe = Callable[[str, float, bool], None]
"""Told of each finished step: its name, its seconds, and whether it succeeded."""

_OFF = _Off()
_recorder: Recorder | None = None
_observe: Observe | None = None


def install(recorder: Recorder | None) -> None:
    """Record spans with `recorder` from now on; None turns recording off."""
    global _recorder
    _recorder = recorder


def measure(observe: Observe | None) -> None:
    """Tell `observe` of every finished step from now on; None turns that off."""
    global _observe
    _observe = observe


def recorder() -> Recorder | None:
    """What records spans; None while recording is off, so it also guards costly attributes."""
    return _recorder


def leave(token: Token[TraceContext | None]) -> None:
    """Undo a `current.set`, also from another context: an async generator may be closed in one."""
    with contextlib.suppress(ValueError):
        current.reset(token)


def span(name: str, /, **attributes: AttributeValue) -> Span:
    """Time a step of the request being served.

        with span("cni add", network="pods") as step:
            step.set("interface", "eth0")

    Attributes keep their names; dotted ones are given as `**{"cni.network": name}`. Never put secrets in
    them. Costs one call when recording is off.
    """
    if _recorder is None:
        return _OFF if _observe is None else _Timed(_observe, name, _OFF)
    recorded = _recorder.span(name, attributes)
    return recorded if _observe is None else _Timed(_observe, name, recorded)
