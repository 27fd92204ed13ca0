"""Instruments that cost a comparison while metrics are off.

Instruments are declared when a daemon starts, at module level or in `start`, and get their backend
(OpenTelemetry's SDK, imported only then) when `[metrics]` or `[telemetry] metrics` turn them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Labels = Mapping[str, str | int | bool]
Observations = Iterable[tuple[float, Labels]]

SECONDS: Sequence[float] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)
"""Histogram buckets from a fast status call to a slow pull."""


class Counter:
    """A sum that only grows."""

    __slots__ = ("_backend", "help", "name", "unit")

    def __init__(self, name: str, help: str, unit: str) -> None:
        self.name, self.help, self.unit = name, help, unit
        self._backend: Any = None

    def add(self, amount: float = 1, **labels: str | int | bool) -> None:
        if self._backend is not None:
            self._backend.add(amount, labels)


class Histogram:
    """A distribution, by buckets."""

    __slots__ = ("_backend", "buckets", "help", "name", "unit")

    def __init__(self, name: str, help: str, unit: str, buckets: Sequence[float]) -> None:
        self.name, self.help, self.unit, self.buckets = name, help, unit, buckets
        self._backend: Any = None

    def observe(self, value: float, **labels: str | int | bool) -> None:
        if self._backend is not None:
            self._backend.record(value, labels)


class Gauge:
    """A value that is asked for when somebody looks."""

    __slots__ = ("help", "name", "read", "unit")

    def __init__(self, name: str, help: str, unit: str, read: Callable[[], Observations]) -> None:
        self.name, self.help, self.unit, self.read = name, help, unit, read


Instrument = TypeVar("Instrument", Counter, Histogram, Gauge)


class Metrics:
    """The instruments of one daemon.

    Names are as Prometheus has them, without the unit and `_total`, which the exporter adds:
    `metrics.counter("triptych_image_pulls", "Image pulls that ended.")`. A name may be declared once.
    """

    def __init__(self) -> None:
        self._instruments: dict[str, Counter | Histogram | Gauge] = {}
        self._meter: Any = None

    def counter(self, name: str, help: str, *, unit: str = "1") -> Counter:
        return self._add(Counter(name, help, unit))

    def histogram(
        self, name: str, help: str, *, unit: str = "s", buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        return self._add(Histogram(name, help, unit, buckets))

    def gauge(self, name: str, help: str, read: Callable[[], Observations], *, unit: str = "1") -> Gauge:
        """:param read: gives (value, labels) pairs; called on any thread and must be quick."""
        return self._add(Gauge(name, help, unit, read))

    @property
    def recording(self) -> bool:
        """Whether anybody looks; guards work done for a metric alone."""
        return self._meter is not None

    @property
    def instruments(self) -> Sequence[Counter | Histogram | Gauge]:
        """All that were declared; documentation is made from it."""
        return tuple(self._instruments.values())

    def _add(self, instrument: Instrument) -> Instrument:
        if instrument.name in self._instruments:
            raise ValueError(f"metric {instrument.name} is declared twice")
        self._instruments[instrument.name] = instrument
        if self._meter is not None:
            self._attach(instrument)
        return instrument

    def attach(self, meter: Any) -> None:
        """Record with an OpenTelemetry meter from now on."""
        self._meter = meter
        for instrument in self._instruments.values():
            self._attach(instrument)

    def _attach(self, instrument: Counter | Histogram | Gauge) -> None:
        about: dict[str, Any] = {"unit": instrument.unit, "description": instrument.help}
        if isinstance(instrument, Counter):
            instrument._backend = self._meter.create_counter(instrument.name, **about)
        elif isinstance(instrument, Histogram):
            instrument._backend = self._meter.create_histogram(
                instrument.name, explicit_bucket_boundaries_advisory=list(instrument.buckets), **about
            )
        else:
            from opentelemetry.metrics import Observation

            read = instrument.read
            self._meter.create_observable_gauge(
                instrument.name, [lambda _: [Observation(v, dict(labels)) for v, labels in read()]], **about
            )
