"""Starting conmon (https://github.com/containers/conmon).

The contract: conmon reads one byte from _OCI_STARTPIPE before it does anything, so that its cgroup is set
first; then runs `RUNTIME create`, and answers on _OCI_SYNCPIPE with one JSON line {"pid": N} or
{"pid": -1, "message": ...}. It detaches itself (double fork) and records the exit as a file of the
container's name in the exit directory.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from triptych_linux import process
from triptych_linux.stdio import keep_null

from triptych_runtime.errors import MonitorTimeout, RuntimeFailed
from triptych_runtime.ociruntime import OciRuntime

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class MonitorPaths:
    """Where a container's monitor keeps its files; all on tmpfs.

    :param bundle: the OCI bundle; conmon makes `ctl` (its control fifo) and `attach` in it.
    """

    bundle: Path

    @property
    def container_pid(self) -> Path:
        return self.bundle / "pidfile"

    @property
    def monitor_pid(self) -> Path:
        return self.bundle / "conmon.pid"

    @property
    def attach(self) -> Path:
        """The attach socket (SOCK_SEQPACKET)."""
        return self.bundle / "attach"

    @property
    def control(self) -> Path:
        """The control fifo: "1 HEIGHT WIDTH" resizes, "2 0 0" reopens the log."""
        return self.bundle / "ctl"

    @property
    def runtime_log(self) -> Path:
        """What the OCI runtime had to say of the create."""
        return self.bundle / "runtime.log"

    @property
    def oom(self) -> Path:
        """Exists once the kernel's OOM killer struck in the container."""
        return self.bundle / "oom"


@dataclass(frozen=True, slots=True)
class Started:
    """What conmon reported: the container's first process and the monitor itself."""

    pid: int
    monitor_pid: int


@dataclass(frozen=True, slots=True)
class Conmon:
    """How monitors are started on this node.

    :param place: puts a monitor's PID into its cgroup before it runs anything.
    """

    path: str
    exit_dir: Path
    deadline: float
    log_level: str
    place: Callable[[int], Awaitable[None]]

    async def create(
        self,
        container_id: str,
        name: str,
        runtime: OciRuntime,
        paths: MonitorPaths,
        *,
        log_path: str,
        terminal: bool,
        stdin: bool,
        stdin_once: bool,
        log_size_max: int = 0,
        no_new_keyring: bool = False,
        restore: Path | None = None,
    ) -> Started:
        """Run `RUNTIME create` under a new monitor.

        :param log_path: the CRI log file, "" for none.
        :param no_new_keyring: leave the container this daemon's session keyring instead of one of its own.
        :param restore: a checkpoint (CRIU images) to restore instead of a create.
        :raises RuntimeFailed: with the OCI runtime's message.
        :raises MonitorTimeout: when there is no answer in time; the monitor is killed then.
        """
        argv = [
            *(self.path, "--bundle", str(paths.bundle), "--cid", container_id, "--cuuid", container_id),
            *("--name", name, "--runtime", runtime.program, "--container-pidfile", str(paths.container_pid)),
            *("--conmon-pidfile", str(paths.monitor_pid), "--exit-dir", str(self.exit_dir)),
            *("--persist-dir", str(paths.bundle), "--log-level", self.log_level),
            *("--log-path", f"k8s-file:{log_path}" if log_path else "none"),
            *("--full-attach", "--no-sync-log"),
        ]
        # Its standard error is the container's: a warning of the runtime would be a line of the log.
        # Errors are told there all the same, and conmon passes them on.
        runtime_args = [*runtime.global_args, "--log", str(paths.runtime_log)]
        argv += [f"--runtime-arg={arg}" for arg in runtime_args]
        argv += ["--systemd-cgroup"] if runtime.systemd_cgroup else []
        argv += ["--terminal"] if terminal else []
        argv += ["--stdin"] if stdin else []
        argv += ["--leave-stdin-open"] if stdin and not stdin_once else []
        argv += ["--log-size-max", str(log_size_max)] if log_size_max else []
        argv += ["--restore", str(restore)] if restore else []
        # conmon hands the keyring flag to `restore` as well, and runc knows it for `create` only.
        argv += ["--no-new-keyring"] if no_new_keyring and not restore else []
        try:
            return await self._launch(argv, paths)
        finally:
            keep_null()

    async def _launch(self, argv: list[str], paths: MonitorPaths) -> Started:
        sync_read, sync_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        start_read, start_write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(sync_write, True)
        try:
            env = {"PATH": _PATH, "_OCI_SYNCPIPE": str(sync_write), "_OCI_STARTPIPE": str(start_read)}
            child = await process.spawn(
                argv,
                step="conmon",
                env=env,
                cwd=paths.bundle,
                pass_fds=(sync_write, start_read),
                stderr=process.PIPE,
            )
            os.close(sync_write)
            os.close(start_read)
            sync_write = start_read = -1
            try:
                await self.place(child.pid)
                os.write(start_write, b"\0")
                async with asyncio.timeout(self.deadline):
                    answer = await _read_line(sync_read)
                    code = await child.wait()
            except TimeoutError:
                raise MonitorTimeout(f"conmon: no answer after {self.deadline:g} s") from None
            finally:
                error = _stderr(child)
                if child.popen.returncode is None:
                    await child.close()
        finally:
            for fd in (sync_read, sync_write, start_read, start_write):
                if fd >= 0:
                    os.close(fd)
        return _started(answer, code, error, paths)


def _stderr(child: process.Child) -> str:
    pipe = child.popen.stderr
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    try:
        return (pipe.read() or b"").decode(errors="replace").strip()
    finally:
        pipe.close()


def _started(answer: bytes, code: int, error: str, paths: MonitorPaths) -> Started:
    try:
        document = json.loads(answer)
        pid, message = int(document["pid"]), str(document.get("message", ""))
    except (ValueError, KeyError, TypeError):
        raise RuntimeFailed(f"conmon: no answer, exit status {code}: {error or answer!r}") from None
    if pid <= 0:
        raise RuntimeFailed(f"create: {message.strip() or error or f'status {pid}'}")
    return Started(pid, int(paths.monitor_pid.read_text()))


async def _read_line(fd: int) -> bytes:
    """Read a pipe up to a newline or its end."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    done: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return
        data.extend(chunk)
        if (not chunk or b"\n" in chunk) and not done.done():
            done.set_result(None)

    loop.add_reader(fd, ready)
    try:
        await done
    finally:
        loop.remove_reader(fd)
    return bytes(data)
