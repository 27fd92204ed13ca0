"""StopPodSandbox."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.errors import SandboxNotFound
from triptych_runtime.node import Node
from triptych_runtime.sandboxes import remove_sandbox, stop_sandbox


async def stop_pod_sandbox(
    node: Node, request: api_pb2.StopPodSandboxRequest
) -> api_pb2.StopPodSandboxResponse:
    """Kill the containers of a sandbox and give back its network. Idempotent, also for an unknown ID."""
    try:
        record = node.state.sandbox(request.pod_sandbox_id)
    except SandboxNotFound:
        return api_pb2.StopPodSandboxResponse()
    if f"remove sandbox {record.id}" in node.flights:
        await remove_sandbox(node, record)
    else:
        await stop_sandbox(node, record)
    return api_pb2.StopPodSandboxResponse()
