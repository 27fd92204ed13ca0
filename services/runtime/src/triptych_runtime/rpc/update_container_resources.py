"""UpdateContainerResources: in-place resize."""

from __future__ import annotations

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.errors import InvalidArgument, WrongContainerState
from triptych_runtime.model import ContainerPhase, ContainerRecord
from triptych_runtime.node import Node
from triptych_runtime.resources import merge, update_spec
from triptych_runtime.spec import oom_score_adj, validate_resources


async def update_container_resources(
    node: Node, request: api_pb2.UpdateContainerResourcesRequest
) -> api_pb2.UpdateContainerResourcesResponse:
    """Change the limits of a container: all of them or, on an error, none.

    Of a container that is created but not started, the limits it will start with are changed.

    :raises InvalidArgument: naming the field. :raises FailedPrecondition: for what the node cannot limit.
    :raises WrongContainerState: for an exited container.
    """
    record = node.state.container(request.container_id)
    if request.HasField("windows") and not request.HasField("linux"):
        raise InvalidArgument("windows: this is a Linux runtime")
    validate_resources(request.linux, "linux")
    async with node.locks.hold(record.id):
        record = node.state.container(record.id)
        if record.phase not in (ContainerPhase.CREATED, ContainerPhase.RUNNING):
            raise WrongContainerState(f"update container {record.id}: it is {record.phase.value}")
        merged = merge(record.resources, request.linux)
        if record.running:
            await _update_cgroup(node, record, request.linux, merged)
        else:
            await update_spec(node, record, merged)
        await node.state.save(msgspec.structs.replace(record, resources=merged))
    return api_pb2.UpdateContainerResourcesResponse()


async def _update_cgroup(
    node: Node,
    record: ContainerRecord,
    changes: api_pb2.LinuxContainerResources,
    merged: api_pb2.LinuxContainerResources,
) -> None:
    kept = record.resources
    score = oom_score_adj(changes, node.host) if changes.oom_score_adj else None
    # What the change itself writes must not be taken back.
    node.cgroups.group_kills.drop(record.cgroups_path)
    try:
        await node.cgroups.update(record.cgroups_path, changes, score)
        kept = merged
    finally:
        node.cgroups.group_kills.keep(record.cgroups_path, kept)
