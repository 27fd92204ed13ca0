"""Records as the stats collector sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.v1 import api_pb2

from triptych_runtime.clients import ImageClient
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.stats import ContainerSubject, LayerUsage, PodSubject


def container_subject(node: Node, record: ContainerRecord) -> ContainerSubject:
    """A container to be measured."""
    config = record.config
    return ContainerSubject(
        attributes=api_pb2.ContainerAttributes(
            id=record.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
        ),
        cgroup=node.cgroups.resolve(record.cgroups_path),
        pid=record.pid,
        started_at=record.started_at,
        image=config.image.user_specified_image or config.image.image,
        resources=record.resources,
    )


def pod_subject(node: Node, record: SandboxRecord) -> PodSubject:
    """A pod to be measured, with its running containers."""
    config = record.config
    running = (c for c in node.state.containers_of(record.id) if c.running)
    return PodSubject(
        attributes=api_pb2.PodSandboxAttributes(
            id=record.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
        ),
        cgroup=node.cgroups.resolve_parent(record.cgroup_parent),
        netns=record.namespaces.get("net", ""),
        containers=tuple(container_subject(node, c) for c in running),
        init_pid=record.init_pid,
        created_at=record.created_at,
    )


class LayerUsageReader:
    """Usage of writable layers, asked of the image daemon."""

    def __init__(self, images: ImageClient) -> None:
        self._images = images

    async def __call__(self, ids: Sequence[str]) -> Mapping[str, LayerUsage]:
        found = await self._images.usage(ids)
        return {
            key: LayerUsage(usage.used_bytes, usage.inodes_used, usage.timestamp, usage.mountpoint)
            for key, usage in found.items()
        }
