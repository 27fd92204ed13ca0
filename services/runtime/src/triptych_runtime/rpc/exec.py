"""Exec: a session at the streaming daemon."""

from __future__ import annotations

from runtime.v1 import api_pb2
from triptych.streaming.v1 import streaming_pb2

from triptych_runtime.errors import ContainerNotRunning, InvalidArgument
from triptych_runtime.execs import exec_process, read_process
from triptych_runtime.node import Node
from triptych_runtime.targets import check_streams, container_target


async def exec_(node: Node, request: api_pb2.ExecRequest, deadline: float) -> api_pb2.ExecResponse:
    """Prepare a command in a running container; the URL is for its client.

    :param deadline: seconds for the streaming daemon.
    :raises ContainerNotRunning: at once, for a container that does not run.
    :raises InvalidArgument: for streams that cannot be, or no command.
    :raises ServiceDown: when the streaming daemon does not answer in time.
    """
    record = node.state.container(request.container_id)
    check_streams(request)
    if not request.cmd:
        raise InvalidArgument("cmd: a command is needed")
    if not record.running:
        raise ContainerNotRunning(record.id, record.phase.value)
    runtime = node.handlers.known(record.handler).runtime
    template = await read_process(node, record)
    call = streaming_pb2.OpenExecRequest(
        target=container_target(node, record),
        streams=streaming_pb2.Streams(
            stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, tty=request.tty
        ),
        runtime_command=runtime.argv,
        process=exec_process(template, list(request.cmd), terminal=request.tty),
        container_pid=record.pid,
        container_start_ticks=record.start_ticks,
    )
    return api_pb2.ExecResponse(url=await node.streaming.open_exec(call, deadline))
