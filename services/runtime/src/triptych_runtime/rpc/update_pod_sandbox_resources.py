"""UpdatePodSandboxResources: in-place resize of a pod."""

from __future__ import annotations

import msgspec
from runtime.v1 import api_pb2

from triptych_runtime.errors import SandboxNotReady
from triptych_runtime.model import SandboxPhase
from triptych_runtime.node import Node
from triptych_runtime.resources import merge
from triptych_runtime.spec import validate_resources


async def update_pod_sandbox_resources(
    node: Node, request: api_pb2.UpdatePodSandboxResourcesRequest
) -> api_pb2.UpdatePodSandboxResourcesResponse:
    """Keep the pod's new limits, and set them where the pod's cgroup is ours.

    A cgroup that the kubelet made is the kubelet's to change: it has done so before this call.

    :raises SandboxNotReady: for a stopped sandbox. :raises InvalidArgument: naming the field.
    """
    identity = node.state.sandbox(request.pod_sandbox_id).id
    validate_resources(request.overhead, "overhead")
    validate_resources(request.resources, "resources")
    async with node.locks.hold(identity):
        record = node.state.sandbox(identity)
        if record.phase is not SandboxPhase.READY:
            raise SandboxNotReady(record.id)
        overhead, resources = record.overhead, record.resources
        if request.HasField("overhead"):
            overhead = merge(overhead, request.overhead)
        if request.HasField("resources"):
            resources = merge(resources, request.resources)
        if record.owns_cgroup:
            await node.cgroups.update_pod(record.id, resources, overhead)
        await node.state.save(msgspec.structs.replace(record, overhead=overhead, resources=resources))
    return api_pb2.UpdatePodSandboxResourcesResponse()
