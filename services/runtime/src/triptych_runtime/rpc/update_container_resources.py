"""UpdateContainerResources: in-place resize."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.errors import InvalidArgument
from triptych_runtime.node import Node
from triptych_runtime.resources import check_resizable, resize
from triptych_runtime.spec import validate_resources


async def update_container_resources(
    node: Node, request: api_pb2.UpdateContainerResourcesRequest
) -> api_pb2.UpdateContainerResourcesResponse:
    """Change the limits of a container: all of them or, on an error, none.

    Of a container that is created but not started, the limits it will start with are changed.

    :raises InvalidArgument: naming the field. :raises FailedPrecondition: for what the node cannot limit.
    :raises WrongContainerState: for an exited container.
    :raises RefusedByPlugin: an NRI plugin does not want it.
    """
    record = node.state.container(request.container_id)
    if request.HasField("windows") and not request.HasField("linux"):
        raise InvalidArgument("windows: this is a Linux runtime")
    validate_resources(request.linux, "linux")
    check_resizable(record)
    sandbox = node.state.sandbox(record.sandbox_id)
    # Not under the container's lock: plugins may want others changed as well.
    wanted = await node.nri.update_container(sandbox, record, request.linux)
    record = await resize(node, record.id, wanted)
    await node.nri.container_updated(sandbox, record)
    return api_pb2.UpdateContainerResourcesResponse()
