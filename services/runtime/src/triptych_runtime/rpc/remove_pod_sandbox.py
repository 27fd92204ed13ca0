"""RemovePodSandbox."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.errors import SandboxNotFound
from triptych_runtime.node import Node
from triptych_runtime.sandboxes import remove_sandbox


async def remove_pod_sandbox(
    node: Node, request: api_pb2.RemovePodSandboxRequest
) -> api_pb2.RemovePodSandboxResponse:
    """Remove a sandbox and its containers, stopping what runs. Idempotent, also for an unknown ID."""
    try:
        record = node.state.sandbox(request.pod_sandbox_id)
    except SandboxNotFound:
        return api_pb2.RemovePodSandboxResponse()
    await remove_sandbox(node, record)
    return api_pb2.RemovePodSandboxResponse()
