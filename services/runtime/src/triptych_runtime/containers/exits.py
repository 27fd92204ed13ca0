"""What happens when a container ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from runtime.v1 import api_pb2
from triptych_errors import TriptychError
from triptych_linux.pidfd import ProcessIdentity

from triptych_runtime import clock
from triptych_runtime.containers.emit import emit
from triptych_runtime.lifecycle import fault
from triptych_runtime.model import ContainerPhase, ContainerRecord, ExitReason
from triptych_runtime.monitor import Exit, kill_monitor
from triptych_runtime.node import Node

log = logging.getLogger(__name__)

#: What an exit counts as when its monitor was lost: containerd's number for "unknown".
UNKNOWN_CODE = 255
_SIGKILLED = 137


def watch(node: Node, record: ContainerRecord) -> None:
    """Be told when the container ends."""
    node.cgroups.oom.add(record.cgroups_path)
    node.cgroups.group_kills.keep(record.cgroups_path, record.resources)
    node.exits.add(record.id, ProcessIdentity(record.pid, record.start_ticks), record.monitor_pid)


def on_exit(node: Node, found: Exit) -> None:
    """The exit watch's callback: the work is joined by whoever waits for this exit."""
    node.flights.background(f"exit {found.container_id}", lambda: handle_exit(node, found))


def on_monitor_lost(node: Node, container_id: str) -> None:
    """The exit watch's callback: what the container prints goes nowhere, and its exit code will be lost."""
    node.metrics.monitor_lost()
    log.warning(
        "a container lives on without its monitor",
        extra={"container": container_id, "lost": "output, attach, exit code"},
    )


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
        try:
            saved = await node.state.show(record)
        finally:
            _tell(node, record)
    fault("exit.saved")
    tell_plugins_of_stop(node, record)
    lost = found.code is None
    node.flights.background(
        f"release {record.id}", lambda: release(node, record, end_monitor=lost, keep_exit=not saved)
    )


def tell_plugins_of_stop(node: Node, record: ContainerRecord) -> None:
    """Tell NRI plugins of a container's end, in the background: a slow one delays nobody."""
    sandbox = node.state.sandboxes.get(record.sandbox_id)
    if sandbox is None or not node.nri.active:
        return

    async def tell() -> None:
        await node.flights.settled(f"start {record.id}")  # which they hear of first
        await node.nri.stop_container(sandbox, record)

    node.flights.background(f"nri stop {record.id}", tell)


async def plugins_told_of_stop(node: Node, container_id: str) -> None:
    """Wait until NRI plugins were told of the end of a container that has ended."""
    if node.nri.active and f"remove {container_id}" not in node.flights:  # which tells it if need be
        async with node.locks.hold(container_id):
            pass  # an end is shown before it is written down, and told after that
        await node.flights.settled(f"nri stop {container_id}")


def _tell(node: Node, record: ContainerRecord) -> None:
    node.exit_waits.notify(record.id, record)
    node.metrics.exited(record, clock.now())
    emit(node, record, api_pb2.CONTAINER_STOPPED_EVENT)
    log.info(
        "container exited", extra={"container": record.id, "code": record.exit_code, "reason": record.reason}
    )


def _exited(node: Node, record: ContainerRecord, found: Exit) -> ContainerRecord:
    code = UNKNOWN_CODE if found.code is None else found.code
    kills = node.cgroups.oom.take(record.cgroups_path)
    node.cgroups.group_kills.drop(record.cgroups_path)
    if found.code is None:
        reason, message = ExitReason.UNKNOWN, "the container's monitor was lost, and its exit code with it"
    elif code != 0 and _oom_killed(node, record, code, kills):
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


def _oom_killed(node: Node, record: ContainerRecord, code: int, kills: int | None) -> bool:
    """The kernel's own count decides; conmon's mark counts where there is none any more."""
    if kills is not None:
        return kills > 0
    return code == _SIGKILLED and node.paths.monitor(record.id).oom.exists()


async def release(
    node: Node, record: ContainerRecord, *, end_monitor: bool = False, keep_exit: bool = False
) -> None:
    """Give back what an ended container holds of the kernel: stray processes, cgroup, runtime state.

    Idempotent. Every step is tried, whatever became of those before.

    :param end_monitor: kill the monitor as well, and what it runs: it hangs, or has not come to an end.
    :param keep_exit: keep the monitor's exit file: what it says is not written down yet.
    :raises TriptychError, OSError: what the first step that failed raised.
    """
    handler = node.handlers.find(record.handler)
    cgroup = node.cgroups.resolve(record.cgroups_path)

    async def kill() -> None:
        if await asyncio.to_thread(cgroup.procs):
            await cgroup.kill()

    steps: list[Callable[[], Awaitable[object]]] = [kill, cgroup.remove]
    if handler is not None:
        steps.insert(1, lambda: handler.runtime.delete(record.id))
    if end_monitor:
        paths = node.paths.monitor(record.id)
        steps.insert(0, lambda: asyncio.to_thread(kill_monitor, paths, record.id))
    failure: Exception | None = None
    for step in steps:
        try:
            await step()
        except (TriptychError, OSError) as error:
            log.warning(
                "releasing an ended container failed", extra={"container": record.id, "error": str(error)}
            )
            failure = failure or error
    if not keep_exit:
        node.exits.remove_file(record.id)
    if failure is not None:
        raise failure


async def undo_start(node: Node, record: ContainerRecord) -> None:
    """End a start that came to nothing, with the monitor and the OCI runtime that may still be at it.

    :raises TriptychError, OSError: as `release`.
    """
    node.exits.forget(record.id)
    node.cgroups.oom.take(record.cgroups_path)
    node.cgroups.group_kills.drop(record.cgroups_path)
    await release(node, record, end_monitor=True)
