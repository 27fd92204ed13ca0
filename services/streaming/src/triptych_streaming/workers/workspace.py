"""What the OCI runtime reads and writes while it starts one process."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
from pathlib import Path

from triptych_linux import sealed

from triptych_streaming.records import ExecSession
from triptych_streaming.workers import console
from triptych_streaming.workers.pump import Sink

_LOG_LIMIT = 1 << 16


def sweep(directory: Path) -> None:
    """Remove what daemons left that were killed: files that begin with the ID of no process."""
    for entry in os.scandir(directory):
        owner = entry.name.lstrip(".").partition("-")[0]
        if not os.path.exists(f"/proc/{owner}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)


def _nothing() -> None:
    """A document is as long as it is: nobody is to be stopped."""


class Workspace:
    """The pid file, the log and the socket for a terminal; and the process document.

    The document is a pipe: the runtime waits for it until `give`. It opens our end by its name in /proc, so
    that no descriptor of it can come into the container.

    :param directory: on tmpfs; the files in it begin with the daemon's process ID, see `sweep`.
    """

    def __init__(self, directory: Path, session: ExecSession) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._session = session
        self._pid_file = directory / f"{name}.pid"
        self._log = directory / f"{name}.log"
        self._sink: Sink | None = None
        self._console: console.ConsoleSocket | None = None
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        if session.streams.tty:
            try:
                self._console = console.ConsoleSocket(directory / f"{name}.sock")
            except BaseException:
                self.close()
                raise

    def argv(self) -> list[str]:
        """The runtime's command line."""
        program, *options = self._session.runtime_command
        command = [sealed.program(program), *options, "--log", str(self._log), "--log-format", "json"]
        command += ["exec", "--detach", "--process", f"/proc/{os.getpid()}/fd/{self._read}"]
        command += ["--pid-file", str(self._pid_file)]
        if self._console is not None:
            command += ["--tty", "--console-socket", self._console.path]
        return [*command, *self._session.exec_args, self._session.target.container_id]

    def give(self) -> None:
        """Let the runtime have the process document: from here on the process may run."""
        write = self._write
        os.set_blocking(write, False)
        document = self._session.process
        self._sink = Sink(
            write,
            lambda data: os.write(write, data),
            limit=len(document),
            on_full=_nothing,
            on_room=_nothing,
            on_closed=self._close_write,
        )
        self._sink.write(document)
        self._sink.end()

    def pid(self) -> int:
        """The process that was started.

        :raises OSError, ValueError: there is none.
        """
        return int(self._pid_file.read_text())

    def terminal(self) -> int:
        """The terminal's master; -1 without a terminal. For when the runtime has ended well.

        :raises ExecFailed: it sent none.
        """
        return self._console.receive() if self._console is not None else -1

    def complaint(self) -> str:
        """The last error in the runtime's log."""
        try:
            lines = self._log.read_bytes()[-_LOG_LIMIT:].decode(errors="replace").splitlines()
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
            os.kill(self.pid(), signal.SIGKILL)

    def close(self) -> None:
        """Remove it. For when the runtime has ended."""
        if self._sink is not None:
            self._sink.close()
        self._close_write()
        if self._console is not None:
            self._console.close()
        os.close(self._read)
        # runc writes the pid to a file with a dot first, which stays when it is killed meanwhile.
        for path in (self._pid_file, self._pid_file.with_name(f".{self._pid_file.name}"), self._log):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _close_write(self) -> None:
        if self._write >= 0:
            os.close(self._write)
            self._write = -1
