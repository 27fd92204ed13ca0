"""What the OCI runtime reads and writes while it starts one process."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
from pathlib import Path

from triptych_linux import sealed
from triptych_linux.latefile import LateFile

from triptych_streaming.records import ExecSession
from triptych_streaming.workers import console

_LOG_LIMIT = 1 << 16


def sweep(directory: Path) -> None:
    """Remove what daemons left that were killed: files that begin with the ID of no process."""
    for entry in os.scandir(directory):
        owner = entry.name.lstrip(".").partition("-")[0]
        if not os.path.exists(f"/proc/{owner}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)


class Workspace:
    """The pid file, the log and the socket for a terminal; and the process document.

    The runtime waits for the document until `give`.

    :param directory: on tmpfs; the files in it begin with the daemon's process ID, see `sweep`.
    """

    def __init__(self, directory: Path, session: ExecSession) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._session = session
        self._pid_file = directory / f"{name}.pid"
        self._log = directory / f"{name}.log"
        self._console: console.ConsoleSocket | None = None
        self._document = LateFile(session.process)
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
        command += ["exec", "--detach", "--process", self._document.path]
        command += ["--pid-file", str(self._pid_file)]
        if self._console is not None:
            command += ["--tty", "--console-socket", self._console.path]
        return [*command, *self._session.exec_args, self._session.target.container_id]

    def user(self) -> tuple[int, int]:
        """User and group of the process, in the container."""
        user = json.loads(self._session.process).get("user", {})
        return user.get("uid", 0), user.get("gid", 0)

    def give(self) -> None:
        """Let the runtime have the process document: from here on the process may run."""
        self._document.give()

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
        self._document.close()
        if self._console is not None:
            self._console.close()
        # runc writes the pid to a file with a dot first, which stays when it is killed meanwhile.
        for path in (self._pid_file, self._pid_file.with_name(f".{self._pid_file.name}"), self._log):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
