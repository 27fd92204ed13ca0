"""PodSandboxStatus."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime import clock
from triptych_runtime.node import Node
from triptych_runtime.rpc.verbose import sandbox_info


async def pod_sandbox_status(
    node: Node, request: api_pb2.PodSandboxStatusRequest
) -> api_pb2.PodSandboxStatusResponse:
    """The sandbox with its containers and the time of both (evented PLEG); `verbose`: the daemon's own view.

    :raises SandboxNotFound: for an unknown ID.
    """
    record = node.state.sandbox(request.pod_sandbox_id)
    containers = [c for c in node.state.containers_of(record.id) if c.visible]
    response = api_pb2.PodSandboxStatusResponse(
        status=node.sandbox_statuses.get(record.id, record),
        containers_statuses=[node.container_statuses.get(c.id, c) for c in containers],
        timestamp=clock.now(),
    )
    if request.verbose:
        response.info["info"] = await sandbox_info(node, record)
    return response
