"""Metrics on their way to a collector."""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData


class MetricExporter(OTLPMetricExporter):
    """OpenTelemetry's exporter, which does not hold up the end for a collector that is away."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._failing = self._ending = False

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        if self._ending and self._failing:
            return MetricExportResult.FAILURE
        result = super().export(metrics_data, timeout_millis, **kwargs)
        self._failing = result is MetricExportResult.FAILURE
        return result

    def end(self) -> None:
        """No attempt is repeated from now on, and none made where the last export failed."""
        self._ending = True
        self._shutdown_in_progress.set()
