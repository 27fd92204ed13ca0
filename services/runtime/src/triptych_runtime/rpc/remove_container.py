"""RemoveContainer."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.containers import remove
from triptych_runtime.errors import ContainerNotFound
from triptych_runtime.node import Node


async def remove_container(
    node: Node, request: api_pb2.RemoveContainerRequest
) -> api_pb2.RemoveContainerResponse:
    """Remove a container, killing it if it runs. Idempotent, also for an unknown ID."""
    try:
        record = node.state.container(request.container_id)
    except ContainerNotFound:
        return api_pb2.RemoveContainerResponse()
    await remove(node, record)
    return api_pb2.RemoveContainerResponse()
