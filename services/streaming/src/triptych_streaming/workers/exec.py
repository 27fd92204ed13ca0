"""A process in a container, started by the OCI runtime.

The runtime is told to detach: it starts the process with our pipes or a terminal, writes the pid, and ends.
The process is then our child, because this daemon is a subreaper, so its exit status comes from the kernel
and no runtime process stays behind for each session.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path

from triptych_linux import process, sealed
from triptych_linux.pidfd import ProcessIdentity, send_signal, wait_exit
from triptych_service import span

from triptych_streaming.errors import ContainerGone, ExecFailed
from triptych_streaming.protocol.channels import Channel
from triptych_streaming.protocol.status import Outcome
from triptych_streaming.records import ExecSession
from triptych_streaming.workers import console
from triptych_streaming.workers.backend import Backend, Input, Output
from triptych_streaming.workers.pump import reader_of

_LOG_LIMIT = 1 << 16
_STDIN_PIPE = 1 << 18
"""Room in the kernel for input, so that a process that reads little at a time costs few turns."""


class ExecBackend(Backend):
    """A running exec process. Made by `start_exec`.

    :param fds: this end of its stdio: pipes by channel, or the terminal's master under STDOUT.
    """

    def __init__(self, pid: int, pidfd: int, fds: dict[Channel, int], *, tty: bool, stdin: bool) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._fds = fds
        self._tty = tty
        self._stdin = stdin

    @property
    def outputs(self) -> Mapping[Channel, Output]:
        return {
            channel: Output(fd, reader_of(fd))
            for channel, fd in self._fds.items()
            if channel is not Channel.STDIN
        }

    @property
    def input(self) -> Input | None:
        if not self._stdin:
            return None
        fd = self._fds[Channel.STDOUT if self._tty else Channel.STDIN]
        return Input(fd, lambda data: os.write(fd, data), self._end_input)

    def _end_input(self) -> None:
        if self._tty:
            with contextlib.suppress(OSError):
                os.write(self._fds[Channel.STDOUT], console.end_of_input(self._fds[Channel.STDOUT]))
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
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222
        if result is None:
            return Outcome(failure="the process ended, but its exit status is lost")
        if result.si_code == os.CLD_EXITED:
            return Outcome(exit_code=result.si_status)
        return Outcome(exit_code=128 + result.si_status)

    async def hang_up(self, seconds: float) -> Outcome:
        for channel in list(self._fds):
            self._close(channel)
        try:
            async with asyncio.timeout(seconds):
                return await self.wait()
        except TimeoutError:
            send_signal(self._pidfd, signal.SIGKILL)
            return await self.wait()

    def close(self) -> None:
        for channel in list(self._fds):
            self._close(channel)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _close(self, channel: Channel) -> None:
        fd = self._fds.pop(channel, -1)
        if fd >= 0:
            os.close(fd)


class _Workspace:
    """The directory of one start: what the runtime reads and writes. Gone when the process runs."""

    def __init__(self, parent: Path, session: ExecSession) -> None:
        self.path = parent / secrets.token_hex(8)
        self.path.mkdir(mode=0o700)
        self.descriptor = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.process = self.path / "process.json"
        self.pid_file = self.path / "pid"
        self.log = self.path / "log"
        self.console: console.ConsoleSocket | None = None
        self.process.write_bytes(session.process)
        if session.streams.tty:
            self.console = console.ConsoleSocket(str(self.path / "console.sock"), self.descriptor)

    def argv(self, session: ExecSession) -> list[str]:
        program, *options = session.runtime_command
        command = [sealed.program(program), *options, "--log", str(self.log), "--log-format", "json", "exec"]
        command += ["--detach", "--process", str(self.process), "--pid-file", str(self.pid_file)]
        if self.console is not None:
            command += ["--tty", "--console-socket", self.console.path]
        return [*command, *session.exec_args, session.target.container_id]

    def complaint(self) -> str:
        """The last error in the runtime's log."""
        try:
            lines = self.log.read_bytes()[-_LOG_LIMIT:].decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        for line in reversed(lines):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("msg") and entry.get("level") in ("error", "fatal"):
                return str(entry["msg"]).strip()
        return ""

    def kill_started(self) -> None:
        """End the process after a failure that came when it had begun; it is our child, so its pid holds."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self.pid_file.read_text()), signal.SIGKILL)

    def close(self) -> None:
        if self.console is not None:
            self.console.close()
        os.close(self.descriptor)
        for name in os.listdir(self.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path / name)
        self.path.rmdir()


class _Stdio:
    """Pipes for a process without a terminal: its ends, and ours."""

    def __init__(self, session: ExecSession) -> None:
        self.theirs: dict[Channel, int] = {}
        self.ours: dict[Channel, int] = {}
        streams = session.streams
        if streams.tty:
            return
        try:
            if streams.stdin:
                self.theirs[Channel.STDIN], self.ours[Channel.STDIN] = os.pipe2(os.O_CLOEXEC)
                with contextlib.suppress(OSError):  # a wish: the system limits what all pipes may hold
                    fcntl.fcntl(self.ours[Channel.STDIN], fcntl.F_SETPIPE_SZ, _STDIN_PIPE)
            # Standard error is read even where the client does not want it: the runtime complains there.
            for channel, wanted in ((Channel.STDOUT, streams.stdout), (Channel.STDERR, True)):
                if wanted:
                    self.ours[channel], self.theirs[channel] = os.pipe2(os.O_CLOEXEC)
            for fd in self.ours.values():
                os.set_blocking(fd, False)
        except BaseException:
            self.close_theirs()
            self.close_ours()
            raise

    def close_theirs(self) -> None:
        while self.theirs:
            os.close(self.theirs.popitem()[1])

    def close_ours(self) -> None:
        while self.ours:
            os.close(self.ours.popitem()[1])

    def complaint(self) -> str:
        """What the runtime wrote to standard error."""
        with contextlib.suppress(OSError, KeyError):
            return os.read(self.ours[Channel.STDERR], _LOG_LIMIT).decode(errors="replace").strip()
        return ""


async def start_exec(session: ExecSession, directory: Path, *, deadline: float) -> ExecBackend:
    """Start a process in a container.

    :param directory: for files that live while it starts; on tmpfs.
    :param deadline: seconds until the runtime is killed.
    :raises ContainerGone: the container does not run any more.
    :raises ExecFailed: the runtime did not start it; with its own words.
    :raises ProgramMissing: there is no such runtime.
    """
    check_running(session)
    stdio = _Stdio(session)
    try:
        workspace = _Workspace(directory, session)
        try:
            with span("runtime exec", container=session.target.container_id):
                await _run_runtime(session, workspace, stdio, deadline)
            return _adopt(session, workspace, stdio)
        except BaseException:
            workspace.kill_started()
            raise
        finally:
            workspace.close()
    except BaseException:
        stdio.close_ours()
        raise
    finally:
        stdio.close_theirs()


def check_running(session: ExecSession) -> None:
    """:raises ContainerGone: its init process has ended since the request was made."""
    if not session.container_pid:
        return
    identity = ProcessIdentity(session.container_pid, session.container_start_ticks)
    if not identity.alive():
        raise ContainerGone(f"container {session.target.container_id} is not running")


async def _run_runtime(session: ExecSession, workspace: _Workspace, stdio: _Stdio, deadline: float) -> None:
    theirs = stdio.theirs
    child = await process.spawn(
        workspace.argv(session),
        step=f"exec in container {session.target.container_id}",
        stdin=theirs.get(Channel.STDIN, process.DEVNULL),
        stdout=theirs.get(Channel.STDOUT, process.DEVNULL),
        stderr=theirs.get(Channel.STDERR, process.DEVNULL),
    )
    stdio.close_theirs()
    try:
        async with asyncio.timeout(deadline):
            code = await child.wait()
    except TimeoutError:
        raise ExecFailed(f"the OCI runtime did not start the process within {deadline:g} s") from None
    finally:
        if child.popen.returncode is None:
            await child.close()
    if code != 0:
        why = workspace.complaint() or stdio.complaint() or f"exit status {code}"
        raise ExecFailed(f"OCI runtime exec failed: {why}")


def _adopt(session: ExecSession, workspace: _Workspace, stdio: _Stdio) -> ExecBackend:
    """Make the process that the runtime left behind ours."""
    streams = session.streams
    master = workspace.console.receive() if workspace.console is not None else -1
    try:
        pid = int(workspace.pid_file.read_text())
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError) as error:
        if master >= 0:
            os.close(master)
        raise ExecFailed(f"the OCI runtime started a process that cannot be found: {error}") from error
    fds = {Channel.STDOUT: master} if streams.tty else dict(stdio.ours)
    stdio.ours.clear()
    return ExecBackend(pid, pidfd, fds, tty=streams.tty, stdin=streams.stdin)
