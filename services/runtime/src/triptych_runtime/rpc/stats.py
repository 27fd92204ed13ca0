"""Statistics and metrics of containers and pods: nine RPCs over one collector."""

from __future__ import annotations

from collections.abc import AsyncIterator

from runtime.v1 import api_pb2

from triptych_runtime.errors import SandboxNotReady
from triptych_runtime.model import ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.rpc.chunks import chunks
from triptych_runtime.stats import metric_descriptors
from triptych_runtime.subjects import container_subject, pod_subject


async def container_stats(
    node: Node, request: api_pb2.ContainerStatsRequest
) -> api_pb2.ContainerStatsResponse:
    """One container, running or not.

    :raises ContainerNotFound: for an unknown ID.
    """
    record = node.state.container(request.container_id)
    found = await node.stats.container_stats([container_subject(node, record)])
    return api_pb2.ContainerStatsResponse(stats=found[0])


async def _container_list(node: Node, filter: api_pb2.ContainerStatsFilter) -> list[api_pb2.ContainerStats]:
    _forget_removed(node)
    records = [r for r in node.state.visible_containers() if r.running and _container_matches(r, filter)]
    return await node.stats.container_stats([container_subject(node, r) for r in records])


async def list_container_stats(
    node: Node, request: api_pb2.ListContainerStatsRequest
) -> api_pb2.ListContainerStatsResponse:
    """Every running container that passes the filter."""
    return api_pb2.ListContainerStatsResponse(stats=await _container_list(node, request.filter))


async def stream_container_stats(
    node: Node, request: api_pb2.StreamContainerStatsRequest
) -> AsyncIterator[api_pb2.StreamContainerStatsResponse]:
    """The same in chunks."""
    for part in chunks(await _container_list(node, request.filter)):
        yield api_pb2.StreamContainerStatsResponse(container_stats=part)


async def pod_sandbox_stats(
    node: Node, request: api_pb2.PodSandboxStatsRequest
) -> api_pb2.PodSandboxStatsResponse:
    """One pod with its containers.

    :raises SandboxNotFound: for an unknown ID. :raises SandboxNotReady: for a stopped one.
    """
    record = node.state.sandbox(request.pod_sandbox_id)
    if record.phase is not SandboxPhase.READY:
        raise SandboxNotReady(record.id)
    found = await node.stats.pod_stats([pod_subject(node, record)])
    return api_pb2.PodSandboxStatsResponse(stats=found[0])


async def _pod_list(node: Node, filter: api_pb2.PodSandboxStatsFilter) -> list[api_pb2.PodSandboxStats]:
    _forget_removed(node)
    records = [s for s in node.state.visible_sandboxes() if _ready(s) and _pod_matches(s, filter)]
    return await node.stats.pod_stats([pod_subject(node, r) for r in records])


async def list_pod_sandbox_stats(
    node: Node, request: api_pb2.ListPodSandboxStatsRequest
) -> api_pb2.ListPodSandboxStatsResponse:
    """Every ready pod that passes the filter."""
    return api_pb2.ListPodSandboxStatsResponse(stats=await _pod_list(node, request.filter))


async def stream_pod_sandbox_stats(
    node: Node, request: api_pb2.StreamPodSandboxStatsRequest
) -> AsyncIterator[api_pb2.StreamPodSandboxStatsResponse]:
    """The same in chunks."""
    for part in chunks(await _pod_list(node, request.filter)):
        yield api_pb2.StreamPodSandboxStatsResponse(pod_sandbox_stats=part)


async def list_metric_descriptors(
    node: Node, request: api_pb2.ListMetricDescriptorsRequest
) -> api_pb2.ListMetricDescriptorsResponse:
    """What ListPodSandboxMetrics tells, in cAdvisor's names."""
    return api_pb2.ListMetricDescriptorsResponse(descriptors=metric_descriptors())


async def _metrics(node: Node) -> list[api_pb2.PodSandboxMetrics]:
    _forget_removed(node)
    records = [s for s in node.state.visible_sandboxes() if _ready(s)]
    return await node.stats.pod_metrics([pod_subject(node, r) for r in records])


async def list_pod_sandbox_metrics(
    node: Node, request: api_pb2.ListPodSandboxMetricsRequest
) -> api_pb2.ListPodSandboxMetricsResponse:
    """Metrics of every ready pod and its containers."""
    return api_pb2.ListPodSandboxMetricsResponse(pod_metrics=await _metrics(node))


async def stream_pod_sandbox_metrics(
    node: Node, request: api_pb2.StreamPodSandboxMetricsRequest
) -> AsyncIterator[api_pb2.StreamPodSandboxMetricsResponse]:
    """The same in chunks."""
    for part in chunks(await _metrics(node)):
        yield api_pb2.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=part)


def _forget_removed(node: Node) -> None:
    node.stats.keep(node.state.containers.keys() | node.state.sandboxes.keys())


def _ready(record: SandboxRecord) -> bool:
    return record.phase is SandboxPhase.READY


def _container_matches(record: ContainerRecord, filter: api_pb2.ContainerStatsFilter) -> bool:
    if filter.id and not record.id.startswith(filter.id):
        return False
    if filter.pod_sandbox_id and not record.sandbox_id.startswith(filter.pod_sandbox_id):
        return False
    labels = record.config.labels
    return all(labels.get(key) == value for key, value in filter.label_selector.items())


def _pod_matches(record: SandboxRecord, filter: api_pb2.PodSandboxStatsFilter) -> bool:
    if filter.id and not record.id.startswith(filter.id):
        return False
    labels = record.config.labels
    return all(labels.get(key) == value for key, value in filter.label_selector.items())
