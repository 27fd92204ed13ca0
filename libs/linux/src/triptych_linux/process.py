"""The one place that runs processes.

Each runs in a process group of its own, has a deadline, is killed as that group when the deadline passes or
the caller is cancelled, and is always reaped. Exits are told by a pidfd, so no SIGCHLD handler, no thread
and no polling is needed; a start costs one vfork.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from triptych_linux.errors import ProcessFailed, ProcessTimeout, ProgramMissing
from triptych_linux.pidfd import wait_exit

T = TypeVar("T")

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
_CHUNK = 1 << 16
_REAP_DEADLINE = 5.0

Argument = str | bytes | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Completed:
    """How a process ended.

    :param returncode: exit status, or minus the signal that ended it.
    :param stdout: at most `max_output` bytes; the rest was read and dropped.
    """

    argv: tuple[Argument, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def how(self) -> str:
        """For people: "exit status 1" or "killed by SIGKILL"."""
        if self.returncode >= 0:
            return f"exit status {self.returncode}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-self.returncode).name}"
        return f"killed by signal {-self.returncode}"


@dataclass(slots=True)
class Child:
    """A running process; use `spawn`. The owner must `wait` for it, `close` does both."""

    popen: subprocess.Popen[bytes]
    pidfd: int
    started: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.popen.pid

    async def wait(self) -> int:
        """Wait for its end and reap it; returns the exit status, or minus the signal. Repeatable."""
        if self.popen.returncode is None:
            await wait_exit(self.pidfd)
            self.popen.wait()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        return self.popen.returncode

    def kill_group(self, number: int = signal.SIGKILL) -> None:
        """Signal its process group; nothing happens when it was reaped."""
        if self.popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, number)

    async def close(self) -> int:
        """Kill its process group, reap it and close its pipes, whatever the caller's fate."""
        try:
            self.kill_group()
            return await shielded(self.wait(), _REAP_DEADLINE)
        finally:
            close_pipes(self)


async def shielded(work: Coroutine[object, object, T], seconds: float) -> T:
    """Await a coroutine to its end under an own deadline even when the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(asyncio.wait_for(work, seconds))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:
            break
    if cancelled is not None:
        raise cancelled
    return task.result()


async def spawn(
    argv: Sequence[Argument],
    *,
    step: str,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    stderr: int = DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    pass_fds: Sequence[int] = (),
    own_group: bool = True,
) -> Child:
    """Start a process that outlives this call.

    :param step: what it is for; begins every error message.
    :param env: the whole environment; None for the daemon's own.
    :raises ProgramMissing: when the program is not there or not executable.
    """
    try:
        # One vfork, under a millisecond; asyncio's own would add transports, and a thread on 3.11.
        popen = subprocess.Popen(  # noqa: ASYNC220
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            # Not a session: where the kernel groups tasks by session (autogroup), each start would wait for
            # its first turn as a newcomer.
            process_group=0 if own_group else None,
            bufsize=0,
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR):
            missing = error.filename if isinstance(error.filename, str) else os.fsdecode(argv[0])
            raise ProgramMissing(step, missing, error.strerror or str(error)) from error
        raise
    return Child(popen, os.pidfd_open(popen.pid))


async def run(
    argv: Sequence[Argument],
    *,
    deadline: float,
    step: str,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    check: bool = True,
    max_output: int = 1 << 20,
    pass_fds: Sequence[int] = (),
    drain: float = 0.5,
) -> Completed:
    """Run a process to its end and collect what it prints.

    :param deadline: seconds until its process group is killed.
    :param step: what it is for ("crun create"); begins every error message.
    :param stdin: fed to it; None for /dev/null.
    :param max_output: bytes kept of stdout and of stderr each; the rest is read and dropped.
    :param drain: seconds that output is still awaited after its end, for a grandchild that holds the pipe.
    :raises ProcessFailed: when `check` and it ends with another status than 0.
    :raises ProcessTimeout: at the deadline.
    :raises ProgramMissing: when the program is not there.
    """
    feed = PIPE if stdin is not None else DEVNULL
    child = await spawn(
        argv, step=step, stdin=feed, stdout=PIPE, stderr=PIPE, env=env, cwd=cwd, pass_fds=pass_fds
    )
    try:
        out, err = Collector(child.popen.stdout, max_output), Collector(child.popen.stderr, max_output)
        writer = _Writer(child.popen.stdin, stdin) if stdin is not None else None
        try:
            async with asyncio.timeout(deadline):
                code = await child.wait()
        except TimeoutError:
            raise ProcessTimeout(step, deadline) from None
        finally:
            if writer is not None:
                writer.close()
        await drain_output(drain, out, err)
        seconds = time.monotonic() - child.started
        completed = Completed(tuple(argv), code, out.value(), err.value(), seconds)
    finally:
        if child.popen.returncode is None:
            await child.close()
        close_pipes(child)
    if check and completed.returncode != 0:
        raise ProcessFailed(step, completed)
    return completed


async def drain_output(seconds: float, *collectors: Collector) -> None:
    """Wait for the end of output, at most `seconds`: a background child may hold the pipe for ever."""
    open_ones = [collector.done for collector in collectors if not collector.done.done()]
    if open_ones:
        await asyncio.wait(open_ones, timeout=seconds)


def close_pipes(child: Child) -> None:
    """Stop reading a child's pipes and close them."""
    loop = asyncio.get_running_loop()
    for pipe in (child.popen.stdin, child.popen.stdout, child.popen.stderr):
        if pipe is not None and not pipe.closed:
            loop.remove_reader(pipe.fileno())
            with contextlib.suppress(OSError):
                pipe.close()


class Collector:
    """Collects a pipe up to a limit, by the event loop's readiness; what is beyond is read and dropped."""

    def __init__(self, pipe: object, limit: int) -> None:
        self._fd: int = pipe.fileno()  # type: ignore[attr-defined]
        self._limit = limit
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._ready)

    def _ready(self) -> None:
        try:
            chunk = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._loop.remove_reader(self._fd)
            if not self.done.done():
                self.done.set_result(None)
            return
        room = self._limit - len(self._kept)
        if room > 0:
            self._kept += chunk[:room]

    def value(self) -> bytes:
        return bytes(self._kept)


class _Writer:
    """Feeds bytes to a pipe and closes it; a reader that goes away early is no error."""

    def __init__(self, pipe: object, data: bytes) -> None:
        self._pipe = pipe
        self._fd: int = pipe.fileno()  # type: ignore[attr-defined]
        self._left = memoryview(data)
        self._loop = asyncio.get_running_loop()
        self._open = True
        os.set_blocking(self._fd, False)
        self._ready()
        if self._open:
            self._loop.add_writer(self._fd, self._ready)

    def _ready(self) -> None:
        try:
            while self._left:
                written = os.write(self._fd, self._left[:_CHUNK])
                self._left = self._left[written:]
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_writer(self._fd)
            with contextlib.suppress(OSError):
                self._pipe.close()  # type: ignore[attr-defined]
