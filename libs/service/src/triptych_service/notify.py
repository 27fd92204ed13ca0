"""sd_notify(3): what the service manager is told, without libsystemd."""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """Sends state to `$NOTIFY_SOCKET`; does nothing when the daemon was not started by a service manager.

    Notification is advice: a manager that cannot be reached never stops the daemon.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        mine = pid in ("", str(os.getpid()))
        self.watchdog_seconds: float | None = int(watchdog) / 1e6 if watchdog.isdigit() and mine else None
        """The interval within which the manager wants to hear `watchdog`; None when it does not."""

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            try:
                sock.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str, seconds: float) -> None:
        """:param seconds: what the stop may take, also where the manager's own limit is lower."""
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")
