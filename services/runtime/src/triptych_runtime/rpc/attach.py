"""Attach: a session at the streaming daemon, on the container's own stdio."""

from __future__ import annotations

from runtime.v1 import api_pb2
from triptych.streaming.v1 import streaming_pb2

from triptych_runtime.errors import ContainerNotRunning
from triptych_runtime.node import Node
from triptych_runtime.targets import check_streams, container_target


async def attach(node: Node, request: api_pb2.AttachRequest, deadline: float) -> api_pb2.AttachResponse:
    """Prepare an attachment to a running container; the URL is for its client.

    Whether there is a terminal is the container's matter, whatever the request says.

    :param deadline: seconds for the streaming daemon.
    :raises ContainerNotRunning: at once, for a container that does not run.
    :raises InvalidArgument: for streams that cannot be.
    :raises ServiceDown: when the streaming daemon does not answer in time.
    """
    record = node.state.container(request.container_id)
    check_streams(request)
    if not record.running:
        raise ContainerNotRunning(record.id, record.phase.value)
    config = record.config
    paths = node.paths.monitor(record.id)
    call = streaming_pb2.OpenAttachRequest(
        target=container_target(node, record),
        streams=streaming_pb2.Streams(
            stdin=request.stdin and config.stdin,
            stdout=request.stdout,
            stderr=request.stderr and not config.tty,
            tty=config.tty,
        ),
        attach_socket=str(paths.attach),
        control_fifo=str(paths.control),
    )
    return api_pb2.AttachResponse(url=await node.streaming.open_attach(call, deadline))
