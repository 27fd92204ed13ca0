"""What happens when a container ends."""

from __future__ import annotations

import asyncio
import logging

import msgspec
from runtime.v1 import api_pb2
from triptych_errors import TriptychError
from triptych_linux.pidfd import ProcessIdentity

from triptych_runtime import clock
from triptych_runtime.containers.emit import emit
from triptych_runtime.lifecycle import fault
from triptych_runtime.model import ContainerPhase, ContainerRecord, ExitReason
from triptych_runtime.monitor import Exit
from triptych_runtime.node import Node

log = logging.getLogger(__name__)

#: What an exit counts as when its monitor was lost: containerd's number for "unknown".
UNKNOWN_CODE = 255
_SIGKILLED = 137


def watch(node: Node, record: ContainerRecord) -> None:
    """Be told when the container ends."""
    node.exits.add(record.id, ProcessIdentity(record.pid, record.start_ticks))


def on_exit(node: Node, found: Exit) -> None:
    """The exit watch's callback: the work is joined by whoever waits for this exit."""
    node.flights.background(f"exit {found.container_id}", lambda: handle_exit(node, found))


async def handle_exit(node: Node, found: Exit) -> None:
    """Record the exit, tell of it, then clean up what the OCI runtime still holds.

    Takes the container's lock, so that an exit during StartContainer is seen after the start.
    """
    async with node.locks.hold(found.container_id):
        record = node.state.containers.get(found.container_id)
        if record is None or record.phase in (ContainerPhase.EXITED, ContainerPhase.REMOVING):
            return
        record = _exited(node, record, found)
        fault("exit.seen")
        await node.state.show(record)
        fault("exit.saved")
    node.exit_waits.notify(record.id, record)
    node.metrics.exited(record, clock.now())
    emit(node, record, api_pb2.CONTAINER_STOPPED_EVENT)
    log.info(
        "container exited", extra={"container": record.id, "code": record.exit_code, "reason": record.reason}
    )
    node.flights.background(f"release {record.id}", lambda: release(node, record))


def _exited(node: Node, record: ContainerRecord, found: Exit) -> ContainerRecord:
    code = UNKNOWN_CODE if found.code is None else found.code
    if found.code is None:
        reason, message = ExitReason.UNKNOWN, "the container's monitor was lost, and its exit code with it"
    elif code != 0 and _oom_killed(node, record, code):
        reason, message = ExitReason.OOM_KILLED, ""
    else:
        reason, message = (ExitReason.COMPLETED if code == 0 else ExitReason.ERROR), ""
    return msgspec.structs.replace(
        record,
        phase=ContainerPhase.EXITED,
        exit_code=code,
        reason=reason.value,
        message=message,
        finished_at=max(found.finished_at, record.started_at),
        pid=0,
        start_ticks=0,
    )


def _oom_killed(node: Node, record: ContainerRecord, code: int) -> bool:
    """The kernel's own count decides; conmon's mark counts where the cgroup is gone already."""
    kills = node.cgroups.resolve(record.cgroups_path).oom_kills()
    if kills is not None:
        return kills > 0
    return code == _SIGKILLED and node.paths.monitor(record.id).oom.exists()


async def release(node: Node, record: ContainerRecord) -> None:
    """Give back what an ended container holds of the kernel: stray processes, cgroup, runtime state."""
    handler = node.handlers.find(record.handler)
    cgroup = node.cgroups.resolve(record.cgroups_path)
    try:
        if await asyncio.to_thread(cgroup.procs):
            await cgroup.kill()
        if handler is not None:
            await handler.runtime.delete(record.id)
        await cgroup.remove()
    except (TriptychError, OSError) as error:
        log.warning(
            "releasing an exited container failed", extra={"container": record.id, "error": str(error)}
        )
        raise
    finally:
        node.exits.remove_file(record.id)
