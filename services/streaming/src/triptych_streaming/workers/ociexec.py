"""The OCI runtime's `exec`, in two steps.

The runtime is started as soon as a session is opened, or else claimed. It then loads, reads the container's
state, and waits for the process document, while the client opens its streams: that is half of its time.
Nothing runs in the container before the document is given, which is when all streams are there.

It is told to detach: it starts the process with our pipes or a terminal, writes the pid, and ends. The
process is then our child, because this daemon is a subreaper, so its exit status comes from the kernel and
no runtime process stays behind for each session.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from triptych_linux import oom, process
from triptych_linux.stdio import give_pipes, keep_null

from triptych_streaming.errors import ExecFailed
from triptych_streaming.protocol.channels import Channel
from triptych_streaming.records import ExecSession
from triptych_streaming.workers.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Started:
    """A process that runs, by descriptor; `terminal` is its master, or -1."""

    pid: int
    pidfd: int
    terminal: int


class OciExec:
    """One run of the runtime; made by `begin`."""

    def __init__(self, workspace: Workspace, child: process.Child) -> None:
        self._workspace = workspace
        self._child = child
        self._adopted = False
        # Waited for from the start: one that fails early is no zombie until the client has its streams.
        self._ended = asyncio.ensure_future(child.wait())

    @property
    def waits(self) -> bool:
        """Whether the runtime has not ended."""
        return not self._ended.done()

    async def start(self, deadline: float, complaint: Callable[[], str]) -> Started:
        """Let the process run.

        :param deadline: seconds for the runtime.
        :param complaint: what the runtime wrote to standard error.
        :raises ExecFailed: the runtime did not start it; with its own words.
        """
        self._workspace.give()
        try:
            async with asyncio.timeout(deadline):
                code = await asyncio.shield(self._ended)
        except TimeoutError:
            raise ExecFailed(f"the OCI runtime did not start the process within {deadline:g} s") from None
        finally:
            keep_null()
        if code != 0:
            why = self._workspace.complaint() or complaint() or f"exit status {code}"
            raise ExecFailed(f"OCI runtime exec failed: {why}")
        return self._adopt()

    def _adopt(self) -> Started:
        """Make the process that the runtime left behind ours."""
        terminal = self._workspace.terminal()
        try:
            pid = self._workspace.pid()
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError) as error:
            if terminal >= 0:
                os.close(terminal)
            raise ExecFailed(f"the OCI runtime started a process that cannot be found: {error}") from error
        self._adopted = True
        return Started(pid, pidfd, terminal)

    async def close(self) -> None:
        """End the runtime if it still runs, and a process that was not handed over; remove their files."""
        try:
            if not self._ended.done():
                self._ended.cancel()
                await asyncio.wait((self._ended,))
                await self._child.close()
            if not self._adopted:
                self._workspace.kill_started()
        finally:
            self._workspace.close()


async def begin(session: ExecSession, directory: Path, stdio: Mapping[Channel, int]) -> OciExec:
    """Start the runtime, up to where it needs the process document.

    :param directory: for files that live while it runs; on tmpfs.
    :param stdio: the process's ends of its pipes.
    :raises ProgramMissing: there is no such runtime.
    """
    workspace = Workspace(directory, session)
    try:
        child = await process.spawn(
            workspace.argv(),
            step=f"exec in container {session.target.container_id}",
            stdin=stdio.get(Channel.STDIN, process.DEVNULL),
            stdout=stdio.get(Channel.STDOUT, process.DEVNULL),
            stderr=stdio.get(Channel.STDERR, process.DEVNULL),
        )
    except BaseException:
        workspace.close()
        raise
    if session.container_pid:
        oom.follow(child.pid, session.container_pid)  # crun gives an exec none of its own
        give_pipes(stdio.values(), session.container_pid, *workspace.user())
    return OciExec(workspace, child)
