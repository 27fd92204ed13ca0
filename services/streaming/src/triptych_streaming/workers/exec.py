"""A process in a container, with pipes or a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from triptych_linux.pidfd import ProcessIdentity, send_signal, wait_exit
from triptych_service import span

from triptych_streaming.errors import ContainerGone, ExecFailed
from triptych_streaming.protocol.channels import Buffer, Channel
from triptych_streaming.protocol.status import Outcome
from triptych_streaming.records import ExecSession
from triptych_streaming.workers import console, ociexec
from triptych_streaming.workers.backend import Backend, Input, Output
from triptych_streaming.workers.pump import reader_of
from triptych_streaming.workers.stdio import Stdio, close_all

_COMPLAINT = 1 << 16
_TRACED_SECONDS = 0.02
"""Between looks at a process that has ended and that strace or a debugger has still to let go."""


class ExecBackend(Backend):
    """One exec session's process.

    :param directory: for files that live while it starts; on tmpfs.
    :param deadline: seconds for the OCI runtime to start it.
    """

    def __init__(self, session: ExecSession, directory: Path, *, deadline: float) -> None:
        self._session = session
        self._directory = directory
        self._deadline = deadline
        self._tty = session.streams.tty
        self._runtime: ociexec.OciExec | None = None
        self._fds: dict[Channel, int] = {}
        """This end of its stdio: pipes by channel, or the terminal's master under STDOUT."""
        self._pidfd = -1
        self._typed = b""
        """The last character that went to the terminal."""

    async def prepare(self) -> None:
        """Start the OCI runtime; see `ociexec`. Nothing happens when it was started before.

        :raises ContainerGone: the container does not run any more.
        :raises ProgramMissing: there is no such runtime.
        :raises ExecFailed: the system lacks what a start needs.
        """
        if self._runtime is not None:
            return
        check_running(self._session)
        try:
            stdio = Stdio(self._session.streams)
            self._fds = stdio.ours
            try:
                self._runtime = await ociexec.begin(self._session, self._directory, stdio.theirs)
            finally:
                close_all(stdio.theirs)
        except OSError as error:
            raise ExecFailed(f"cannot start the OCI runtime: {os.strerror(error.errno or 0)}") from error

    @property
    def prepared(self) -> bool:
        """Whether the runtime runs and waits."""
        return self._runtime is not None and self._runtime.waits

    async def start(self) -> None:
        """Let the process run.

        :raises ContainerGone: the container ended since `prepare`. The runtime looked at it then: it would
            now join whatever has the number of its init process.
        :raises ExecFailed: the runtime did not start it; with its own words.
        """
        assert self._runtime is not None
        check_running(self._session)
        with span("runtime exec", container=self._session.target.container_id):
            started = await self._runtime.start(self._deadline, self._complaint)
        self._pidfd = started.pidfd
        if started.terminal >= 0:
            self._fds[Channel.STDOUT] = started.terminal
        runtime, self._runtime = self._runtime, None
        await runtime.close()

    def _complaint(self) -> str:
        with contextlib.suppress(OSError, KeyError):
            return os.read(self._fds[Channel.STDERR], _COMPLAINT).decode(errors="replace").strip()
        return ""

    @property
    def outputs(self) -> Mapping[Channel, Output]:
        """Standard output from the first on; standard error is the runtime's until the process runs."""
        started = self._pidfd >= 0
        return {
            channel: Output(fd, reader_of(fd))
            for channel, fd in self._fds.items()
            if channel is Channel.STDOUT or (started and channel is Channel.STDERR)
        }

    @property
    def input(self) -> Input | None:
        if not self._session.streams.stdin:
            return None
        if self._tty:
            return Input(self._fds[Channel.STDOUT], self._type, self._end_input)
        fd = self._fds[Channel.STDIN]
        return Input(fd, lambda data: os.write(fd, data), self._end_input)

    def _type(self, data: Buffer) -> int:
        written = os.write(self._fds[Channel.STDOUT], data)
        self._typed = bytes(data[:written][-1:]) or self._typed
        return written

    def _end_input(self) -> None:
        if self._tty:
            with contextlib.suppress(OSError):
                master = self._fds[Channel.STDOUT]
                os.write(master, console.end_of_input(master, self._typed))
        else:
            self._close(Channel.STDIN)

    def resize(self, width: int, height: int) -> None:
        if self._tty and Channel.STDOUT in self._fds:
            console.resize(self._fds[Channel.STDOUT], width, height)

    @property
    def separate_outputs(self) -> bool:
        return not self._tty

    def close_output(self, channel: Channel) -> None:
        self._close(channel)

    async def wait(self) -> Outcome:
        await wait_exit(self._pidfd)
        while (result := self._reap()) is None:  # noqa: ASYNC110 - nothing tells of that
            await asyncio.sleep(_TRACED_SECONDS)
        if result.si_code == os.CLD_EXITED:
            return Outcome(exit_code=result.si_status)
        return Outcome(exit_code=128 + result.si_status)

    def _reap(self) -> os.waitid_result | None:
        return os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)

    async def hang_up(self, seconds: float) -> Outcome:
        close_all(self._fds)
        try:
            async with asyncio.timeout(seconds):
                return await self.wait()
        except TimeoutError:
            send_signal(self._pidfd, signal.SIGKILL)
            return await self.wait()

    async def close(self) -> None:
        close_all(self._fds)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.close()

    def _close(self, channel: Channel) -> None:
        fd = self._fds.pop(channel, -1)
        if fd >= 0:
            os.close(fd)


def check_running(session: ExecSession) -> None:
    """:raises ContainerGone: its init process has ended since the request was made."""
    if not session.container_pid:
        return
    identity = ProcessIdentity(session.container_pid, session.container_start_ticks)
    if not identity.alive():
        raise ContainerGone(f"container {session.target.container_id} is not running")
