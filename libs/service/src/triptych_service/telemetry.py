"""Turns spans and metrics on, as `[telemetry]`, `[metrics]` and the standard OTEL_* variables say.

The variables win over the file, as an operator expects of the environment. OpenTelemetry is imported only
once something is to be recorded.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych_service import tracing
from triptych_service.metrics import Metrics
from triptych_service.settings import ServiceSettings, TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from prometheus_client import CollectorRegistry

    from triptych_service._export import Batches, Exporter
    from triptych_service._metric_export import MetricExporter
    from triptych_service._recording import Sampling

log = logging.getLogger(__name__)

Environment = Mapping[str, str]

METRICS_ADDRESS = "TRIPTYCH_METRICS_ADDRESS"
"""The variable that wins over `metrics.address`."""

LAST_SECONDS = 5.0
"""How long a daemon that stops, or is told of another collector, waits until what is held back is sent."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be recorded."""

    traces: bool
    otlp_metrics: bool
    prometheus: bool

    @property
    def nothing(self) -> bool:
        return not (self.traces or self.otlp_metrics or self.prometheus)


def wanted(settings: ServiceSettings, environment: Environment = os.environ) -> Wanted:
    """Decide from settings and OTEL_* variables what to record."""
    telemetry = settings.telemetry
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    metrics_exporter = environment.get("OTEL_METRICS_EXPORTER", "otlp" if telemetry.metrics else "none")
    return Wanted(
        traces=not disabled and _exports(environment, telemetry, "TRACES", "otlp"),
        otlp_metrics=not disabled and _exports(environment, telemetry, "METRICS", metrics_exporter),
        prometheus=bool(metrics_address(settings, environment)),
    )


def metrics_address(settings: ServiceSettings, environment: Environment = os.environ) -> str:
    """Where metrics are served; the environment lets instances with one configuration have their own."""
    return environment.get(METRICS_ADDRESS, settings.metrics.address)


def _exports(environment: Environment, telemetry: TelemetrySettings, signal: str, exporter: str) -> bool:
    endpoints = (
        environment.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"),
        environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
        telemetry.endpoint,
    )
    return any(endpoints) and environment.get(f"OTEL_{signal}_EXPORTER", exporter) == "otlp"


@dataclass(frozen=True, slots=True)
class Traces:
    """Where spans go."""

    batches: Batches
    exporter: Exporter

    def shutdown(self, seconds: float) -> None:
        """Send what is held back and close the connection; blocks meanwhile, for `seconds` at most."""
        self.exporter.end()
        self.batches.shutdown(seconds)
        self.exporter.shutdown()


@dataclass(frozen=True, slots=True)
class Readings:
    """Where metrics go.

    :param exporter: of the reader that sends them, if there is one.
    """

    provider: MeterProvider
    exporter: MetricExporter | None

    def shutdown(self, seconds: float) -> None:
        """Send the last values and close; blocks meanwhile, for `seconds` at most."""
        if self.exporter is not None:
            self.exporter.end()
        try:
            self.provider.shutdown(timeout_millis=seconds * 1000)
        except Exception as error:  # as the provider says that a reader was too late
            log.warning("metrics are lost", extra={"error": str(error)})


@dataclass(slots=True)
class Telemetry:
    """What was turned on; `shutdown` sends what is still held back.

    :param registry: what the Prometheus endpoint shows, when that is on.
    """

    registry: CollectorRegistry | None = None
    _traces: Traces | None = None
    _metrics: Readings | None = None

    def retrace(self, name: str, version: str, settings: ServiceSettings) -> None:
        """Record traces as changed settings say; blocks until what was recorded before is sent."""
        old, self._traces = self._traces, None
        if wanted(settings).traces:
            _start_traces(self, _resource(name, version, settings.telemetry), settings.telemetry)
        else:
            tracing.install(None)
        if old is not None:
            old.shutdown(LAST_SECONDS)

    def shutdown(self) -> None:
        """Flush and stop, spans and metrics at once; blocks meanwhile, so call it in a thread."""
        tracing.install(None)
        parts = [part for part in (self._traces, self._metrics) if part is not None]
        self._traces = self._metrics = None
        threads = [
            threading.Thread(target=part.shutdown, args=(LAST_SECONDS,), name="last export")
            for part in parts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def start(name: str, version: str, settings: ServiceSettings, metrics: Metrics) -> Telemetry:
    """Turn on what `wanted` says."""
    telemetry = Telemetry()
    wants = wanted(settings)
    if wants.nothing:
        return telemetry
    resource = _resource(name, version, settings.telemetry)
    if wants.traces:
        _start_traces(telemetry, resource, settings.telemetry)
    if wants.otlp_metrics or wants.prometheus:
        _start_metrics(telemetry, resource, wants, settings.telemetry, metrics)
    return telemetry


def _resource(name: str, version: str, settings: TelemetrySettings) -> Resource:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    attributes: dict[str, str] = {
        "service.name": name,
        "service.namespace": "triptych",
        "service.version": version,
        "host.name": os.uname().nodename,
        **settings.resource,
    }
    # `create` lets what it is given win over OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME.
    return Resource.create(attributes).merge(OTELResourceDetector().detect())


def _start_traces(telemetry: Telemetry, resource: Resource, settings: TelemetrySettings) -> None:
    from triptych_service._export import Batches, Exporter
    from triptych_service._recording import Recorder

    exporter = Exporter(resource, **_exporter_arguments(settings, "TRACES"))
    telemetry._traces = Traces(Batches(exporter.send), exporter)
    tracing.install(Recorder(sampling(settings), telemetry._traces.batches.take))
    log.info("recording traces", extra={"endpoint": settings.endpoint or "OTEL_EXPORTER_OTLP_ENDPOINT"})


def sampling(settings: TelemetrySettings, environment: Environment = os.environ) -> Sampling:
    """Which traces are recorded, as OTEL_TRACES_SAMPLER or else the settings say."""
    from triptych_service._recording import Sampling

    sampler = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if not sampler:
        return Sampling(settings.sample_ratio)
    kind = sampler.removeprefix("parentbased_")
    ratios = {"always_on": 1.0, "always_off": 0.0, "traceidratio": _ratio(environment)}
    if kind not in ratios:
        log.warning("OTEL_TRACES_SAMPLER is not known; taking parentbased_always_on", extra={"is": sampler})
        return Sampling()
    return Sampling(ratios[kind], follow=kind != sampler)


def _ratio(environment: Environment) -> float:
    try:
        return min(max(float(environment.get("OTEL_TRACES_SAMPLER_ARG") or 1), 0.0), 1.0)
    except ValueError:
        log.warning("OTEL_TRACES_SAMPLER_ARG is not a number; taking 1")
        return 1.0


def _exporter_arguments(settings: TelemetrySettings, signal: str) -> dict[str, Any]:
    """What the exporter is told by us; what OTEL_* variables name is left to it."""
    arguments: dict[str, Any] = {}
    names = (f"OTEL_EXPORTER_OTLP_{signal}_", "OTEL_EXPORTER_OTLP_")
    if not any(os.environ.get(name + "ENDPOINT") for name in names):
        arguments["endpoint"] = settings.endpoint
        arguments["insecure"] = not settings.endpoint.startswith("https://")
    if settings.headers and not any(os.environ.get(name + "HEADERS") for name in names):
        arguments["headers"] = dict(settings.headers)
    return arguments


def _otlp_reader(exporter: MetricExporter, settings: TelemetrySettings) -> MetricReader:
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    interval = None
    if "OTEL_METRIC_EXPORT_INTERVAL" not in os.environ:
        interval = settings.metrics_interval_seconds * 1000
    return PeriodicExportingMetricReader(exporter, export_interval_millis=interval)


def _prometheus_reader(telemetry: Telemetry) -> MetricReader:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, ProcessCollector

    telemetry.registry = CollectorRegistry()
    ProcessCollector(registry=telemetry.registry)
    return PrometheusMetricReader(scope_info_enabled=False, registry=telemetry.registry)


def _start_metrics(
    telemetry: Telemetry, resource: Resource, wants: Wanted, settings: TelemetrySettings, metrics: Metrics
) -> None:
    from opentelemetry.sdk.metrics import MeterProvider

    exporter: MetricExporter | None = None
    readers: list[MetricReader] = []
    if wants.otlp_metrics:
        from triptych_service._metric_export import MetricExporter

        exporter = MetricExporter(**_exporter_arguments(settings, "METRICS"))
        readers.append(_otlp_reader(exporter, settings))
    if wants.prometheus:
        readers.append(_prometheus_reader(telemetry))
    provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
    telemetry._metrics = Readings(provider, exporter)
    metrics.attach(provider.get_meter("triptych"))
