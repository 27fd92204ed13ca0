"""The sessions that run in this process: who they are, what they moved, and how they end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from triptych_service import Metrics, span, tracing
from triptych_service.tracing import TraceContext

from triptych_streaming.errors import TooManySessions
from triptych_streaming.protocol.negotiation import Kind
from triptych_streaming.protocol.status import Outcome
from triptych_streaming.records import Target, Waiting
from triptych_streaming.traffic import Traffic

audit = logging.getLogger("triptych_streaming.audit")


@dataclass(slots=True)
class Active:
    """One running session.

    :ivar counted: what of its traffic is in the metrics already.
    :ivar reason: why it failed, when it has no outcome; else why it was ended before its time.
    """

    id: str
    kind: Kind
    target: Target
    protocol: str
    peer: str
    created_at: int
    task: asyncio.Task[None] | None
    traffic: Traffic = field(default_factory=Traffic)
    counted: Traffic = field(default_factory=Traffic)
    started: float = field(default_factory=time.monotonic)
    outcome: Outcome | None = None
    reason: str = ""


class Sessions:
    """Registry, limit, accounting and drain."""

    def __init__(self, metrics: Metrics, limit: int) -> None:
        self.limit = limit
        self._active: dict[str, Active] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._ended = metrics.counter(
            "triptych_streaming_sessions",
            "Sessions that ended, by kind and result: ended, failed, or left by the client before.",
        )
        self._bytes = metrics.counter(
            "triptych_streaming_payload", "Payload moved, by kind and direction.", unit="By"
        )
        self._seconds = metrics.histogram(
            "triptych_streaming_session_duration", "How long sessions lasted, by kind."
        )
        self._refused = metrics.counter(
            "triptych_streaming_refused_requests", "HTTP requests that became no session, by status."
        )
        metrics.gauge("triptych_streaming_active_sessions", "Sessions that run.", self._count)

    def _count(self) -> Iterator[tuple[float, dict[str, str | int | bool]]]:
        active = list(self._active.values())
        for kind in Kind:
            yield sum(each.kind is kind for each in active), {"kind": kind.value}

    def __len__(self) -> int:
        return len(self._active)

    def __iter__(self) -> Iterator[Active]:
        return iter(list(self._active.values()))

    def check_room(self) -> None:
        """:raises TooManySessions: no further session may run."""
        if len(self._active) >= self.limit:
            raise TooManySessions(
                f"{self.limit} sessions run already", hint="see limits.sessions of the streaming daemon"
            )

    def count_traffic(self) -> None:
        """Bring the metrics up to what running sessions have moved so far."""
        for active in self:
            self._count_traffic(active)

    def _count_traffic(self, active: Active) -> None:
        moved, kind = active.traffic.since(active.counted), active.kind.value
        self._bytes.add(moved.received, kind=kind, direction="in")
        self._bytes.add(moved.sent, kind=kind, direction="out")

    def refused(self, status: int) -> None:
        """Count a request that was answered with an error."""
        self._refused.add(status=status)

    @contextmanager
    def running(self, waiting: Waiting, protocol: str, peer: str) -> Iterator[Active]:
        """Account for a session while the context lasts; it sets `outcome` or `reason` before it leaves."""
        session = waiting.session
        active = Active(
            waiting.id,
            session.kind,
            session.target,
            protocol,
            peer,
            waiting.created_at,
            asyncio.current_task(),
        )
        self._active[active.id] = active
        self._empty.clear()
        token = tracing.current.set(TraceContext.parse(waiting.trace) or TraceContext.new())
        try:
            with span("session", kind=session.kind.value, protocol=protocol, session=active.id) as step:
                yield active
                step.set("bytes_in", active.traffic.received)
                step.set("bytes_out", active.traffic.sent)
        finally:
            del self._active[active.id]
            if not self._active:
                self._empty.set()
            self._account(active)
            tracing.leave(token)

    def _account(self, active: Active) -> None:
        seconds = time.monotonic() - active.started
        kind, traffic, target = active.kind.value, active.traffic, active.target
        outcome = active.outcome
        failure = outcome.failure if outcome else active.reason or "cut off"
        self._ended.add(kind=kind, result="failed" if failure else "left" if active.reason else "ended")
        self._count_traffic(active)
        self._seconds.observe(seconds, kind=kind)
        details: dict[str, object] = {
            "session": active.id,
            "kind": kind,
            "protocol": active.protocol,
            "client": active.peer,
            "namespace": target.pod_namespace,
            "pod": target.pod_name,
            "pod_sandbox_id": target.pod_sandbox_id,
            "container": target.container_name,
            "container_id": target.container_id,
            "seconds": round(seconds, 3),
            "bytes_in": traffic.received,
            "bytes_out": traffic.sent,
        }
        if outcome is not None and outcome.exit_code is not None:
            details["exit_code"] = outcome.exit_code
        if failure:
            details["error"] = failure
        elif active.reason:
            details["reason"] = active.reason
        audit.info("session ended", extra={key: value for key, value in details.items() if value != ""})

    async def drain(self, seconds: float) -> int:
        """Wait for the sessions to end, at most `seconds`, then end them; returns how many that took."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            cut = [each.task for each in self if each.task is not None]
            for task in cut:
                task.cancel()
            await self._empty.wait()
            return len(cut)
        return 0
