"""What the runtime daemon measures of pods and containers; docs/metrics.md explains each."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from typing import TYPE_CHECKING

from triptych_service import Metrics

from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase
from triptych_runtime.store import State

if TYPE_CHECKING:
    from triptych_service.metrics import Labels

_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)


class RuntimeMetrics:
    """The instruments; each costs a comparison while metrics are off."""

    def __init__(self, metrics: Metrics) -> None:
        self._exits = metrics.counter(
            "triptych_runtime_container_exits", "Containers that ended, by reason and runtime handler."
        )
        self._monitors_lost = metrics.counter(
            "triptych_runtime_monitors_lost", "Containers that were found alive without their monitor."
        )
        self._exit_lag = metrics.histogram(
            "triptych_runtime_exit_lag",
            "Time from the end of a container to its exit being known to callers.",
            buckets=_LAGS,
        )
        self._event_lag = metrics.histogram(
            "triptych_runtime_event_lag",
            "Time from a container event to its delivery to a client of GetContainerEvents.",
            buckets=_LAGS,
        )
        self._nri = metrics.histogram(
            "triptych_runtime_nri_duration", "Time that an NRI plugin takes for an event."
        )

    def plugin_told(self, plugin: str, event: str, outcome: str, seconds: float) -> None:
        """Note how long an NRI plugin took for an event, and what came of it."""
        self._nri.observe(seconds, plugin=plugin, event=event, outcome=outcome)

    def exited(self, record: ContainerRecord, now: int) -> None:
        """Count an exit.

        :param now: Unix time in nanoseconds, as the record's times.
        """
        self._exits.add(reason=record.reason, handler=record.handler)
        self._exit_lag.observe(max(0, now - record.finished_at) / 1e9)

    def monitor_lost(self) -> None:
        """Count a container that lives on without its monitor."""
        self._monitors_lost.add()

    def delivered(self, created_at: int, now: int) -> None:
        """Note the delivery of an event to one client."""
        self._event_lag.observe(max(0, now - created_at) / 1e9)


def declare_state(metrics: Metrics, state: State) -> None:
    """Gauges over what the node holds."""

    def sandboxes() -> Iterator[tuple[float, Labels]]:
        # A metrics reader is on a thread of its own; list() of a dict's values is one step to it.
        tally = Tally(sandbox.phase for sandbox in list(state.sandboxes.values()))
        yield from ((tally[phase], {"state": phase.name.lower()}) for phase in SandboxPhase)

    def containers() -> Iterator[tuple[float, Labels]]:
        tally = Tally(container.phase for container in list(state.containers.values()))
        yield from ((tally[phase], {"state": phase.name.lower()}) for phase in ContainerPhase)

    metrics.gauge("triptych_runtime_sandboxes", "Pod sandboxes on this node, by state.", sandboxes)
    metrics.gauge("triptych_runtime_containers", "Containers on this node, by state.", containers)
