"""PortForward: a session at the streaming daemon, in the pod's network namespace."""

from __future__ import annotations

from runtime.v1 import api_pb2
from triptych.streaming.v1 import streaming_pb2

from triptych_runtime.errors import InvalidArgument, SandboxNotReady
from triptych_runtime.model import SandboxPhase
from triptych_runtime.node import Node
from triptych_runtime.targets import sandbox_target

_PORTS = range(1, 65536)


async def port_forward(
    node: Node, request: api_pb2.PortForwardRequest, deadline: float
) -> api_pb2.PortForwardResponse:
    """Prepare forwarding to ports of a ready sandbox; the URL is for its client.

    :param deadline: seconds for the streaming daemon.
    :raises SandboxNotReady: at once, for a stopped sandbox. :raises InvalidArgument: for no port at all.
    :raises ServiceDown: when the streaming daemon does not answer in time.
    """
    record = node.state.sandbox(request.pod_sandbox_id)
    for port in request.port:
        if port not in _PORTS:
            raise InvalidArgument(f"port: {port} is no port")
    if record.phase is not SandboxPhase.READY:
        raise SandboxNotReady(record.id)
    call = streaming_pb2.OpenPortForwardRequest(
        target=sandbox_target(record), network_namespace=record.namespaces.get("net", ""), ports=request.port
    )
    return api_pb2.PortForwardResponse(url=await node.streaming.open_port_forward(call, deadline))
