"""ContainerStatus."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.node import Node
from triptych_runtime.rpc.verbose import container_info


async def container_status(
    node: Node, request: api_pb2.ContainerStatusRequest
) -> api_pb2.ContainerStatusResponse:
    """The container; with `verbose` the daemon's own view of it.

    :raises ContainerNotFound: for an unknown ID.
    """
    record = node.state.container(request.container_id)
    response = api_pb2.ContainerStatusResponse(status=node.container_statuses.get(record.id, record))
    if request.verbose:
        response.info["info"] = await container_info(node, record)
    return response
