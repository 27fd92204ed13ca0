"""StopContainer."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.containers import stop
from triptych_runtime.errors import ContainerNotFound, InvalidArgument
from triptych_runtime.node import Node


async def stop_container(node: Node, request: api_pb2.StopContainerRequest) -> api_pb2.StopContainerResponse:
    """Stop a container with a grace of `timeout` seconds. Idempotent, also for an unknown ID.

    :raises InvalidArgument: for a negative timeout. :raises StopTimeout: when it lives after SIGKILL.
    """
    if request.timeout < 0:
        raise InvalidArgument(f"timeout: {request.timeout} is negative")
    try:
        record = node.state.container(request.container_id)
    except ContainerNotFound:
        return api_pb2.StopContainerResponse()
    await stop(node, record, float(request.timeout))
    return api_pb2.StopContainerResponse()
