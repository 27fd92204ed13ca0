"""ExecSync: a command in a container, its output in one answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from runtime.v1 import api_pb2
from triptych_errors import DeadlineExceeded
from triptych_linux import exits, oom, process
from triptych_linux.latefile import LateFile
from triptych_linux.stdio import empty_pipe, give_pipes
from triptych_service.tracing import span

from triptych_runtime.errors import ContainerNotRunning, InvalidArgument, RuntimeFailed
from triptych_runtime.execs import exec_process, read_process
from triptych_runtime.model import ContainerRecord, new_id
from triptych_runtime.node import Node
from triptych_runtime.ociruntime.command import readable
from triptych_runtime.rpc.exec_copier import wait_for_command

_REAP_DEADLINE = 1.0
_END_DEADLINE = 10.0


async def exec_sync(node: Node, request: api_pb2.ExecSyncRequest) -> api_pb2.ExecSyncResponse:
    """Run a command in a running container and wait for it.

    Each output stream is kept up to the configured limit (16 MiB), the rest is read and dropped. What the
    command leaves running does not hold the call.

    :raises ContainerNotRunning: at once, for a container that does not run.
    :raises DeadlineExceeded: after `timeout` seconds, with every process of the command killed.
    """
    record = node.state.container(request.container_id)
    if not request.cmd:
        raise InvalidArgument("cmd: a command is needed")
    if request.timeout < 0:
        raise InvalidArgument(f"timeout: {request.timeout} is negative")
    if not record.running:
        raise ContainerNotRunning(record.id, record.phase.value)
    with span("exec", container=record.id):
        return await _exec(node, record, list(request.cmd), float(request.timeout) or None)


async def _exec(
    node: Node, record: ContainerRecord, cmd: list[str], seconds: float | None
) -> api_pb2.ExecSyncResponse:
    pid_file = node.paths.exec / f"{new_id()[:32]}.pid"
    template = await read_process(node, record)
    document = LateFile(exec_process(template, cmd, terminal=False))
    what = f"exec in container {record.id}: {cmd[0]!r}"
    try:
        code, out, err = await _run(node, record, document, pid_file, seconds, what)
        started = pid_file.exists()
    finally:
        document.close()
        with contextlib.suppress(FileNotFoundError):
            pid_file.unlink()
    if code and not started:
        raise RuntimeFailed(
            f"exec in container {record.id}: {readable(err) or 'the OCI runtime was killed'}"
        )
    return api_pb2.ExecSyncResponse(stdout=out, stderr=err, exit_code=code if code >= 0 else 128 - code)


async def _run(
    node: Node, record: ContainerRecord, document: LateFile, pid_file: Path, seconds: float | None, what: str
) -> tuple[int, bytes, bytes]:
    """Run the OCI runtime's exec; how the command ended and what it wrote."""
    handler, settings = node.handlers.known(record.handler), node.settings.containers
    runtime, limit = handler.runtime, settings.exec_sync_output_bytes
    with exits.record() if handler.features.copies_output else contextlib.nullcontext() as recorded:
        with empty_pipe() as stdin:
            child = await process.spawn(
                runtime.exec_argv(record.id, Path(document.path), pid_file),
                step=f"{runtime.name} exec",
                stdin=stdin,
                stdout=process.PIPE,
                stderr=process.PIPE,
            )
        ended = False
        try:
            oom.follow(child.pid, record.pid)
            pipes = [pipe.fileno() for pipe in (child.popen.stdout, child.popen.stderr) if pipe]
            give_pipes(pipes, record.pid, record.user.uid, record.user.gid)
            document.give()  # not before: until it has that, the command is not started
            out = process.Collector(child.popen.stdout, limit)
            err = process.Collector(child.popen.stderr, limit)
            try:
                async with asyncio.timeout(seconds):
                    if recorded is None:
                        code = await child.wait()
                    else:
                        drain = settings.exec_sync_drain
                        code = await wait_for_command(child, pid_file, recorded, drain, what)
                ended = True
            except TimeoutError:
                raise DeadlineExceeded(f"{what}: no end after {seconds:g} s, killed") from None
            await process.drain_output(settings.exec_sync_drain, out, err)
        finally:
            if child.popen.returncode is None:
                with contextlib.suppress(TimeoutError):  # it hangs in the kernel, killed
                    await process.shielded(_end(child, pid_file, alive=not ended), _END_DEADLINE)
            process.close_pipes(child)
    return code, out.value(), err.value()


async def _end(child: process.Child, pid_file: Path, *, alive: bool) -> None:
    """Kill the command if it is alive, then give the OCI runtime a moment to reap it.

    A dead process that nobody has reaped keeps the container's PID namespace from ending, and the node's
    init may take its time.
    """
    if not alive:
        await child.close()
        return
    begun = _kill_command(pid_file)
    try:
        async with asyncio.timeout(_REAP_DEADLINE):
            await child.wait()
    except TimeoutError:
        await child.close()
        if not begun:  # It may have been since: the end of the runtime is not that of the command.
            _kill_command(pid_file)


def _kill_command(pid_file: Path) -> bool:
    """SIGKILL the command with its session and all its descendants; False when it has not begun."""
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return False
    for victim in [*_descendants(pid), pid]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(victim, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    return True


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            for child in map(int, children):
                found += [*_descendants(child), child]
    except OSError:
        return found
    return found
