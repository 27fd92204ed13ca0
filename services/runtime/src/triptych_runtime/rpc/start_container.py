"""StartContainer: the monitor, and under it the OCI runtime's create, then its start."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec
from runtime.v1 import api_pb2
from triptych_errors import TriptychError
from triptych_linux.pidfd import start_ticks
from triptych_linux.process import shielded
from triptych_linux.stdio import give_pipes
from triptych_service.tracing import span

from triptych_runtime import clock
from triptych_runtime.containers import emit, watch
from triptych_runtime.containers.exits import tell_plugins_of_stop, undo_start
from triptych_runtime.errors import CalledOff, RuntimeFailed, WrongContainerState
from triptych_runtime.lifecycle import deadline, fault
from triptych_runtime.model import ContainerPhase, ContainerRecord, ExitReason
from triptych_runtime.node import Node
from triptych_runtime.ociruntime import OciRuntime
from triptych_runtime.sandboxes import require_ready
from triptych_runtime.settings import HandlerSettings

log = logging.getLogger(__name__)

#: Exit code of a container whose start failed, as containerd reports it.
START_ERROR_CODE = 128
#: Seconds for undoing a start, whose steps have shorter deadlines of their own.
_UNDO_DEADLINE = 240.0


async def start_container(
    node: Node, request: api_pb2.StartContainerRequest
) -> api_pb2.StartContainerResponse:
    """Start a created container. A retry joins the start that runs; of a running container it is a success.

    :raises ContainerNotFound: for an unknown ID. :raises WrongContainerState: for an exited container.
    :raises SandboxNotReady: when its sandbox was stopped, or has lost its namespaces.
    :raises RuntimeFailed, OperationTimeout: with the OCI runtime's message, or what did not end; the
        container is exited with StartError then.
    """
    record = node.state.container(request.container_id)
    if not record.running:
        await node.flights.join(f"start {record.id}", lambda: _start(node, record.id))
    return api_pb2.StartContainerResponse()


async def _start(node: Node, container_id: str) -> None:
    async with node.locks.hold(container_id):
        record = node.state.container(container_id)
        if record.running:
            return
        sandbox = node.state.sandbox(record.sandbox_id)
        if record.phase is not ContainerPhase.CREATED:
            raise WrongContainerState(
                f"start container {record.id}: it is {record.phase.value}, not created"
            )
        await require_ready(node, sandbox)
        runtime = node.handlers.get(record.handler).runtime
        record = msgspec.structs.replace(record, phase=ContainerPhase.STARTING)
        await node.state.save(record)
        # A start that is cancelled, since the daemon stops, stays as it is: the next daemon undoes it.
        try:
            async with deadline(node.settings.deadlines.create, f"start container {record.id}"):
                fault("start_container.marked")
                await node.nri.start_container(sandbox, record)
                fault("start_container.nri")
                record = await _launch(node, runtime, record)
        except CalledOff:
            raise  # as one that is cancelled
        except Exception as error:
            await shielded(_failed(node, record, error), _UNDO_DEADLINE)
            raise
        log.info("started container", extra={"container": record.id, "pid": record.pid})
        emit(node, record, api_pb2.CONTAINER_STARTED_EVENT)
    await node.nri.container_started(sandbox, record)


async def _launch(node: Node, runtime: OciRuntime, record: ContainerRecord) -> ContainerRecord:
    config = record.config
    options = node.settings.handlers.get(record.handler, HandlerSettings())
    await asyncio.to_thread(_make_log_directory, record.log_path)
    with span("runtime create", handler=runtime.name):
        started = await node.conmon.create(
            record.id,
            record.name,
            runtime,
            node.paths.monitor(record.id),
            log_path=record.log_path,
            terminal=config.tty,
            stdin=config.stdin,
            stdin_once=config.stdin_once,
            log_size_max=node.settings.containers.log_size_max,
            no_new_keyring=options.no_new_keyring,
            restore=Path(record.restored_from) if record.restored_from else None,
        )
    fault("start_container.created")
    try:
        ticks = start_ticks(started.pid)
    except ProcessLookupError:
        raise RuntimeFailed(f"start container {record.id}: its process ended before the start") from None
    record = msgspec.structs.replace(
        record, pid=started.pid, start_ticks=ticks, monitor_pid=started.monitor_pid, started_at=clock.now()
    )
    watch(node, record)
    if not config.tty:
        pipes = (f"/proc/{record.pid}/fd/{number}" for number in range(3))
        give_pipes(pipes, record.pid, record.user.uid, record.user.gid)
    if not record.restored_from:
        with span("runtime start", handler=runtime.name):
            await runtime.start(record.id)
    fault("start_container.started")
    record = msgspec.structs.replace(record, phase=ContainerPhase.RUNNING)
    await node.state.save(record)
    return record


async def _failed(node: Node, record: ContainerRecord, error: Exception) -> None:
    """An exited container with the reason; the caller sees the error as well."""
    try:
        await undo_start(node, record)
    except (TriptychError, OSError) as problem:
        log.warning("undoing a start failed", extra={"container": record.id, "error": str(problem)})
    moment = clock.now()
    record = msgspec.structs.replace(
        record,
        phase=ContainerPhase.EXITED,
        exit_code=START_ERROR_CODE,
        reason=ExitReason.START_ERROR.value,
        message=str(error) or type(error).__name__,
        started_at=moment,
        finished_at=moment,
    )
    await node.state.show(record)
    log.warning("start failed", extra={"container": record.id, "error": record.message})
    emit(node, record, api_pb2.CONTAINER_STOPPED_EVENT)
    tell_plugins_of_stop(node, record)


def _make_log_directory(log_path: str) -> None:
    if log_path:
        try:
            Path(log_path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RuntimeFailed(f"log directory: {error}") from error
