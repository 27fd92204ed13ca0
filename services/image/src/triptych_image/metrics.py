"""What the image daemon measures of pulls and of its store; docs/metrics.md explains each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from triptych_errors import Code, TriptychError
from triptych_service import Metrics

from triptych_image.app import App
from triptych_image.pull.progress import LayerProgress, PullRecord, Stage

if TYPE_CHECKING:
    from triptych_service.metrics import Labels


class ImageMetrics:
    """The instruments; each costs a comparison while metrics are off."""

    def __init__(self, metrics: Metrics, app: App) -> None:
        self._app = app
        self._pulls = metrics.counter(
            "triptych_image_pulls", "Image pulls that ended, by outcome and gRPC code."
        )
        self._seconds = metrics.histogram(
            "triptych_image_pull_duration", "Time from the start of a pull to its end, by outcome."
        )
        self._received = metrics.counter(
            "triptych_image_received", "Bytes of layers taken from registries, by host.", unit="By"
        )
        self._unpacked = metrics.counter(
            "triptych_image_unpacked", "Bytes that layers unpacked to.", unit="By"
        )
        self._layers = metrics.counter("triptych_image_layers_fetched", "Layers fetched, by outcome.")
        metrics.gauge("triptych_image_running_pulls", "Image pulls that run.", self._running)
        metrics.gauge("triptych_image_images", "Images in the store.", self._images)
        metrics.gauge(
            "triptych_image_store_size",
            "Disk taken by unpacked layers and by writable layers, as last measured.",
            self._size,
            unit="By",
        )
        app.puller.board.on_end = self._pull_ended
        app.puller.layers.on_end = self._layer_ended

    def _pull_ended(self, record: PullRecord) -> None:
        outcome = "ok" if record.stage is Stage.DONE else "error"
        self._pulls.add(outcome=outcome, code=_code(record.error))
        self._seconds.observe(max(0, time.time_ns() - record.started_at) / 1e9, outcome=outcome)

    def _layer_ended(self, layer: LayerProgress, succeeded: bool) -> None:
        self._layers.add(outcome="ok" if succeeded else "error")
        self._received.add(layer.received, host=layer.host)
        self._unpacked.add(layer.unpacked)

    def _running(self) -> Iterator[tuple[float, Labels]]:
        yield len(list(self._app.puller.board)), {}

    def _images(self) -> Iterator[tuple[float, Labels]]:
        yield len(self._app.store.snapshot.images), {}

    def _size(self) -> Iterator[tuple[float, Labels]]:
        yield self._app.store.snapshot.layer_bytes, {"kind": "layers"}
        yield self._app.meter.known()[0], {"kind": "writable"}


def _code(error: Exception | None) -> str:
    """The gRPC status that the caller saw."""
    if error is None:
        return Code.OK.name
    if isinstance(error, InterruptedError):
        return Code.CANCELLED.name
    return (error.code if isinstance(error, TriptychError) else Code.INTERNAL).name
