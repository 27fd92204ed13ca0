"""PodSandboxMetrics messages."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping

from runtime.v1 import api_pb2

from triptych_runtime.stats import values
from triptych_runtime.stats.network import read_interfaces
from triptych_runtime.stats.subjects import ContainerSubject, LayerUsage, PodSubject
from triptych_runtime.stats.values import Value


def pod_metrics(subject: PodSubject, layers: Mapping[str, LayerUsage]) -> api_pb2.PodSandboxMetrics:
    """Metrics of one pod and its containers. Blocking: for a thread.

    The pod's own, with an empty container label, are its cgroup's and its network's, as cAdvisor has them.
    """
    now = time.time_ns()
    meta = subject.attributes.metadata
    pods = (meta.name, meta.namespace)
    found = [
        values.cpu_values(subject.cgroup),
        values.memory_values(subject.cgroup),
        values.pressure_values(subject.cgroup),
        values.block_io_values(subject.cgroup),
    ]
    if subject.netns:
        pids = [item.pid for item in subject.containers if item.pid]
        found.append(values.network_values(read_interfaces(subject.netns, pids)))
    labels = (subject.cgroup.path, subject.id, "", "", *pods)
    message = api_pb2.PodSandboxMetrics(pod_sandbox_id=subject.id)
    message.metrics.extend(_messages(itertools.chain(*found), labels, now))
    for container in subject.containers:
        message.container_metrics.append(_container(container, layers.get(container.id), pods, now))
    return message


def _container(
    subject: ContainerSubject, layer: LayerUsage | None, pods: tuple[str, str], now: int
) -> api_pb2.ContainerMetrics:
    found = [
        values.cpu_values(subject.cgroup),
        values.memory_values(subject.cgroup),
        values.pressure_values(subject.cgroup),
        values.block_io_values(subject.cgroup),
        values.hugetlb_values(subject.cgroup),
        values.process_values(subject.cgroup, subject.pid),
        values.spec_values(subject.cgroup, subject.resources, subject.started_at, now),
    ]
    if layer is not None:
        found.append(values.layer_values(layer))
    name = subject.attributes.metadata.name
    labels = (subject.cgroup.path, subject.id, subject.image, name, *pods)
    metrics = _messages(itertools.chain(*found), labels, now)
    return api_pb2.ContainerMetrics(container_id=subject.id, metrics=metrics)


def _messages(found: Iterable[Value], labels: tuple[str, ...], now: int) -> list[api_pb2.Metric]:
    return [
        api_pb2.Metric(
            name=family.name,
            timestamp=now,
            metric_type=family.kind,
            label_values=labels + own,
            value=api_pb2.UInt64Value(value=value),
        )
        for family, own, value in found
    ]
