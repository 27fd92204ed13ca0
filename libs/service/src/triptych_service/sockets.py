"""The daemon's unix socket: never open to others, never stolen from a live owner.

gRPC unlinks whatever socket lies at the path it binds, so liveness is settled before it may try: a lock file
beside the socket is held for the daemon's life, and a socket that answers belongs to somebody. The server
binds a private name, which is renamed over the public one, so clients never meet a half-open path.

A socket that the service manager passes may be passed to several instances, and the kernel chooses among
them. So each of these also serves an address of its own, `PATH.PID`, for who wants to ask just this one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from triptych_service import adoption
from triptych_service.errors import SocketInUse, SocketUnusable

_LONGEST = 107
"""sun_path holds 108 bytes with its closing zero."""

LONGEST_PATH = _LONGEST - len("..4194304")
"""Bytes of a daemon's path: with the largest PID, the private name beside it is as long as can be."""


class SocketPath:
    """Ownership of a socket path, from `claim` to `release`.

    :raises SocketInUse: another live process serves the path.
    :raises SocketUnusable: the path cannot be a socket.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        self._inode: tuple[int, int] | None = None
        self._adopted: adoption.Adopted | None = None
        self._own: Path | None = None

    @property
    def private(self) -> Path:
        """The name that the server binds before it is published."""
        return self.path.with_name(f".{self.path.name}.{os.getpid()}")

    def claim(self, *, activated: bool = False) -> None:
        """Take the path, or refuse when somebody serves it.

        :param activated: the service manager listens on the path and passed its socket on.
        """
        if len(os.fsencode(self.path)) > LONGEST_PATH:
            raise SocketUnusable(f"socket path {self.path} is too long: at most {LONGEST_PATH} bytes")
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise SocketUnusable(f"socket directory {self.path.parent}: {error.strerror}") from None
        self._take_lock(shared=activated)
        if activated:
            return
        try:
            self._refuse_live()
        except BaseException:
            self.release()
            raise

    def _take_lock(self, *, shared: bool) -> None:
        """:param shared: the manager's socket may be passed to several instances of one service."""
        lock = os.open(
            self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            os.close(lock)
            pid = int(holder) if holder.isdigit() else None
            raise SocketInUse(str(self.path), pid, _program(pid)) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def _refuse_live(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise SocketUnusable(f"socket path {self.path} exists and is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.setblocking(False)
            result = probe.connect_ex(str(self.path))
            if result in (errno.ECONNREFUSED, errno.ENOENT):
                return
            pid = _peer_pid(probe) if result == 0 else None
        raise SocketInUse(str(self.path), pid, _program(pid))

    def bind(self, add_port: Callable[[str], int]) -> None:
        """Let `add_port` (of a gRPC server) bind, closed to others from its first moment, and publish it."""
        private = self._bind(add_port, self.private)
        found = private.lstat()
        self._inode = (found.st_dev, found.st_ino)
        private.rename(self.path)

    def bind_passed(self, add_port: Callable[[str], int], descriptor: int) -> None:
        """Let the gRPC server serve the listening socket that the service manager passed."""
        private = self._bind(add_port, self.private)
        try:
            self._adopted = adoption.adopt(descriptor, private)
        finally:
            private.unlink(missing_ok=True)
        self._forget_killed()
        self._own = self._bind(add_port, self.path.with_name(f"{self.path.name}.{os.getpid()}"))

    def _forget_killed(self) -> None:
        """Remove the own addresses of instances that could not do so."""
        for left in self.path.parent.glob(f"{glob.escape(self.path.name)}.*"):
            pid = left.name.rpartition(".")[2]
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                left.unlink(missing_ok=True)

    def before_stop(self) -> None:
        """Call before the gRPC server stops: a passed socket goes on listening for the next daemon."""
        if self._adopted is not None:
            self._adopted.give_back()

    def _bind(self, add_port: Callable[[str], int], path: Path) -> Path:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            bound = add_port(f"unix:{path}")
        except RuntimeError as error:
            raise SocketUnusable(f"socket {self.path}: {error}") from None
        finally:
            os.umask(before)
        if not bound:
            raise SocketUnusable(f"socket {path} cannot be bound")
        return path

    def release(self) -> None:
        """Remove the socket if it is still this one, and let the lock go."""
        if self._inode is not None:
            with contextlib.suppress(FileNotFoundError):
                found = self.path.lstat()
                if (found.st_dev, found.st_ino) == self._inode:
                    self.path.unlink()
            self._inode = None
        if self._own is not None:
            self._own.unlink(missing_ok=True)
            self._own = None
        if self._lock is not None:
            # The lock file stays: removing it would let two daemons hold locks on two files of one name.
            os.close(self._lock)
            self._lock = None


def _peer_pid(connected: socket.socket) -> int | None:
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid or None


def _program(pid: int | None) -> str | None:
    """What a process calls itself; None when it is gone or hidden."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() or None
    except OSError:
        return None


def listen_fds() -> dict[str, int]:
    """Sockets passed by the service manager (sd_listen_fds(3)), by name; taken out of the environment.

    Unnamed ones are called `unknown`; of equal names the first keeps it, the others get `name.1`, `name.2`.
    """
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    passed: dict[str, int] = {}
    for index in range(int(count)):
        descriptor = 3 + index
        os.set_inheritable(descriptor, False)
        base = (names[index] if index < len(names) else "") or "unknown"
        name, again = base, 0
        while name in passed:
            again += 1
            name = f"{base}.{again}"
        passed[name] = descriptor
    return passed
