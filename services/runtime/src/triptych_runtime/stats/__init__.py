"""Statistics and metrics of containers and pods."""

from triptych_runtime.stats.collector import StatsCollector
from triptych_runtime.stats.families import metric_descriptors
from triptych_runtime.stats.subjects import ContainerSubject, LayerReader, LayerUsage, PodSubject

__all__ = [
    "ContainerSubject",
    "LayerReader",
    "LayerUsage",
    "PodSubject",
    "StatsCollector",
    "metric_descriptors",
]
