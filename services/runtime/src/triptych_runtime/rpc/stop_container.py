"""StopContainer."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.containers import stop
from triptych_runtime.errors import ContainerNotFound
from triptych_runtime.node import Node


async def stop_container(node: Node, request: api_pb2.StopContainerRequest) -> api_pb2.StopContainerResponse:
    """Stop a container with a grace of `timeout` seconds, none or less: at once.

    Idempotent, also for an unknown ID.

    :raises StopTimeout: when it lives after SIGKILL.
    """
    try:
        record = node.state.container(request.container_id)
    except ContainerNotFound:
        return api_pb2.StopContainerResponse()
    await stop(node, record, max(0.0, float(request.timeout)))
    return api_pb2.StopContainerResponse()
