"""Processes that tests and benchmarks start: with a log each, waited for, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych_dev.patience import PATIENCE

START_SECONDS = 20.0 * PATIENCE
_STOP = 30.0 * PATIENCE


class StackError(Exception):
    """Something did not start or stop; the message has the end of its log."""


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Process:
    """A process that we started, and where its output went."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def stop(self, number: int = signal.SIGTERM, seconds: float = _STOP) -> int:
        """Signal it and wait; killed when it does not end."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(5)
                raise StackError(f"{self.name} did not end on signal {number}:\n{self.tail()}") from None
        return self.popen.returncode

    def tail(self, lines: int = 30) -> str:
        """The end of its output."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


def spawn(name: str, argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> Process:
    """Start a process in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    return Process(name, popen, log)


def wait_for(ready: Any, process: Process, seconds: float = START_SECONDS) -> None:
    """Wait until `ready()` holds, or raise with the end of the process's log."""
    end = time.monotonic() + seconds
    while not ready():
        if process.popen.poll() is not None:
            raise StackError(f"{process.name} ended with {process.popen.returncode}:\n{process.tail()}")
        if time.monotonic() > end:
            raise StackError(f"{process.name} is not ready after {seconds:g} s:\n{process.tail()}")
        time.sleep(0.02)


def pss(pids: list[int]) -> int:
    """The proportional set size of processes in bytes (proc(5), smaps_rollup)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total
