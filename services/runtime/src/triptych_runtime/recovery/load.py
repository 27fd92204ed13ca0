"""Loading the records, so that reads can be answered."""

from __future__ import annotations

import logging

import msgspec

from triptych_runtime import clock
from triptych_runtime.containers.exits import UNKNOWN_CODE
from triptych_runtime.model import ContainerPhase, ContainerRecord, ExitReason, SandboxPhase, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.store import Snapshot

log = logging.getLogger(__name__)


def load(node: Node, snapshot: Snapshot) -> bool:
    """Show the records; returns whether the node was rebooted since they were written.

    After a reboot nothing is alive: every record is shown as ended at once, and the rest of the work is
    done behind the first answers.
    """
    rebooted = snapshot.boot_id != "" and snapshot.boot_id != clock.boot_id()
    sandboxes, containers = snapshot.sandboxes, snapshot.containers
    if rebooted:
        log.info("the node was rebooted", extra={"sandboxes": len(sandboxes), "containers": len(containers)})
        sandboxes = [_ended_sandbox(s) for s in sandboxes]
        containers = [_ended_container(c) for c in containers]
    node.incomplete = snapshot.incomplete and not rebooted
    node.unreadable = snapshot.unreadable
    node.state.load(sandboxes, containers)
    return rebooted


def _ended_sandbox(record: SandboxRecord) -> SandboxRecord:
    phase = SandboxPhase.NOT_READY if record.phase is SandboxPhase.READY else record.phase
    return msgspec.structs.replace(record, phase=phase, init_pid=0, init_start_ticks=0, namespaces={})


def _ended_container(record: ContainerRecord) -> ContainerRecord:
    if record.phase in (ContainerPhase.CREATING, ContainerPhase.REMOVING, ContainerPhase.EXITED):
        return record
    return msgspec.structs.replace(
        record,
        phase=ContainerPhase.EXITED,
        exit_code=UNKNOWN_CODE,
        reason=ExitReason.UNKNOWN.value,
        message="the node was rebooted",
        finished_at=clock.now(),
        pid=0,
        start_ticks=0,
        monitor_pid=0,
    )
