"""UpdatePodSandboxResources: in-place resize of a pod."""

from __future__ import annotations

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.errors import SandboxNotReady
from triptych_runtime.model import SandboxPhase, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.resources import merge
from triptych_runtime.spec import validate_resources


async def update_pod_sandbox_resources(
    node: Node, request: api_pb2.UpdatePodSandboxResourcesRequest
) -> api_pb2.UpdatePodSandboxResourcesResponse:
    """Keep the pod's new limits, and set them where the pod's cgroup is ours.

    A cgroup that the kubelet made is the kubelet's to change: it has done so before this call.

    :raises SandboxNotReady: for a stopped sandbox. :raises InvalidArgument: naming the field.
    :raises RefusedByPlugin: an NRI plugin does not want it.
    """
    sandbox = _ready(node.state.sandbox(request.pod_sandbox_id))
    validate_resources(request.overhead, "overhead")
    validate_resources(request.resources, "resources")
    overhead = request.overhead if request.HasField("overhead") else None
    resources = request.resources if request.HasField("resources") else None
    await node.nri.update_pod_sandbox(sandbox, overhead, resources)
    async with node.locks.hold(sandbox.id):
        record = _ready(node.state.sandbox(sandbox.id))
        record = msgspec.structs.replace(
            record,
            overhead=record.overhead if overhead is None else merge(record.overhead, overhead),
            resources=record.resources if resources is None else merge(record.resources, resources),
        )
        if record.owns_cgroup:
            await node.cgroups.update_pod(record.id, record.resources, record.overhead)
        await node.state.save(record)
    await node.nri.pod_sandbox_updated(record)
    return api_pb2.UpdatePodSandboxResourcesResponse()


def _ready(record: SandboxRecord) -> SandboxRecord:
    """:raises SandboxNotReady: for a stopped sandbox."""
    if record.phase is not SandboxPhase.READY:
        raise SandboxNotReady(record.id)
    return record
