"""ReopenContainerLog: after the kubelet has renamed the log file."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from pathlib import Path
from typing import NoReturn

from runtime.v1 import api_pb2

from triptych_runtime.errors import ContainerNotRunning, MonitorTimeout, RuntimeFailed
from triptych_runtime.model import ContainerRecord
from triptych_runtime.node import Node

_REOPEN = b"2 0 0\n"
_DEADLINE = 5.0
#: Seconds until the end of a container is known whose monitor has seen it and is gone.
_END_SECONDS = 2.0
#: Of the files that conmon makes.
_MODE = 0o600


async def reopen_container_log(
    node: Node, request: api_pb2.ReopenContainerLogRequest
) -> api_pb2.ReopenContainerLogResponse:
    """Tells the monitor to open the log file anew, and waits until the new file is there.

    On an error the monitor goes on with the old file, and no new one is made.

    :raises ContainerNotRunning: for a container that does not run.
    :raises RuntimeFailed: when no file can be made there, or the monitor is gone.
    :raises MonitorTimeout: when the monitor hangs.
    """
    record = node.state.container(request.container_id)
    if not record.running:
        raise ContainerNotRunning(record.id, record.phase.value)
    if record.log_path:
        with node.exit_waits.expecting(record.id) as ended:
            await _reopen(node, record, ended)
    return api_pb2.ReopenContainerLogResponse()


async def _reopen(node: Node, record: ContainerRecord, ended: asyncio.Future[ContainerRecord]) -> None:
    control = node.paths.monitor(record.id).control
    draft = Path(f"{record.log_path}.tmp")
    await asyncio.to_thread(_make, draft)
    try:
        if not await asyncio.to_thread(_tell, control):
            await _without_monitor(ended)
        await _wait_for(draft, node, record.id)
    except (ContainerNotRunning, MonitorTimeout, RuntimeFailed):
        await asyncio.to_thread(_take_back, control, draft)
        raise


def _make(draft: Path) -> None:
    """Make the file that conmon is about to open and to rename: it ends where it cannot make it itself,
    and the container's output and exit code are lost with it."""
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE))
    except OSError as error:
        raise RuntimeFailed(f"reopen log: {error}", hint="the old file is still written to") from error


def _tell(control: Path) -> bool:
    """Whether there is a monitor that was told."""
    try:
        fd = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise RuntimeFailed(f"reopen log: {error}") from error
    try:
        os.write(fd, _REOPEN)
    finally:
        os.close(fd)
    return True


async def _without_monitor(ended: asyncio.Future[ContainerRecord]) -> NoReturn:
    """:raises ContainerNotRunning: its container has ended, as it does before its monitor.
    :raises RuntimeFailed: its container lives."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            record = await ended
    except TimeoutError:
        raise RuntimeFailed("reopen log: the container's monitor is gone") from None
    raise ContainerNotRunning(record.id, record.phase.value)


def _take_back(control: Path, draft: Path) -> None:
    """Unsay what the monitor has not read: after an error no file may come into being."""
    with contextlib.suppress(OSError):
        draft.unlink()
    with contextlib.suppress(OSError):
        fd = os.open(control, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.read(fd, 4096)
        finally:
            os.close(fd)


async def _wait_for(draft: Path, node: Node, container_id: str) -> None:
    """conmon answers nothing, but renames the file. One whose container has ended does not."""
    end = time.monotonic() + _DEADLINE
    pause = 0.001
    while await asyncio.to_thread(draft.exists):
        record = node.state.container(container_id)
        if not record.running:
            raise ContainerNotRunning(record.id, record.phase.value)
        if time.monotonic() > end:
            raise MonitorTimeout(f"reopen log: the monitor opened no new file within {_DEADLINE:g} s")
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)
