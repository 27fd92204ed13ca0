"""Socket activation for gRPC, which has no way to be handed a listening socket.

gRPC's Python server only takes an address and makes the socket itself; the C core's own support for
activation is not in the wheels (it needs libsystemd at build time). What remains is a relay, which would
cost every RPC two more copies and context switches, or a path renamed over the manager's, which ends
activation at the first restart since the manager goes on listening on a socket nobody can reach, or this:

The server binds a private path. Before it has accepted anything, the passed socket is put in the place of
the bound one by dup2(2), under the same descriptor, and is registered with the same epoll instance under the
same data, which the kernel tells in /proc/self/fdinfo. Nothing else in gRPC refers to the socket but by that
number. RPCs then arrive with no detour, and clients that connected while the daemon was away are answered.
Before gRPC closes the socket, which would also unlink its path, it gets its own one back, so that clients
who come during a restart wait for the next daemon. A test holds this true for the gRPC release in the lock
file; where it cannot be done the daemon refuses to start and says so.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from triptych_service.errors import SocketUnusable

_EPOLL_CTL_ADD = 1
_EPOLL_CTL_DEL = 2
_TARGET = re.compile(r"^tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)\s+data:\s*([0-9a-f]+)", re.MULTILINE)


class _EpollEvent(ctypes.Structure):
    _pack_ = (
        1 if os.uname().machine == "x86_64" else 0
    )  # packed on this architecture only, says epoll_ctl(2)
    _layout_ = "ms"
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


@dataclass(frozen=True, slots=True)
class _Registration:
    """One epoll instance that watches the socket, and how."""

    epoll: int
    events: int
    data: int


def choose(passed: Mapping[str, int], path: Path) -> str | None:
    """The name of the passed socket that gRPC is to be served on: one bound to `path`, or named `grpc`."""
    for name, descriptor in passed.items():
        with _borrow(descriptor) as candidate:
            if candidate.family != socket.AF_UNIX or not _listens(candidate):
                continue
            if name == "grpc" or candidate.getsockname() == str(path):
                return name
    return None


class Adopted:
    """A passed socket that serves under gRPC's descriptor."""

    def __init__(self, listener: int, own: int, watchers: list[_Registration]) -> None:
        self._listener = listener
        self._own = own
        self._watchers = watchers

    def give_back(self) -> None:
        """Let gRPC have the socket it made; call before its server stops."""
        if self._own >= 0:
            _replace(self._listener, self._own, self._watchers)
            self._own = -1


def adopt(descriptor: int, bound: Path) -> Adopted:
    """Put the passed socket in the place of the one that a gRPC server of this process bound to `bound`.

    Call between `add_insecure_port` and `start`. The passed descriptor is closed.

    :raises SocketUnusable: gRPC's socket or its epoll registration was not found.
    """
    listener = next((fd for fd in _descriptors() if _is_listener(fd, bound)), None)
    if listener is None:
        raise SocketUnusable(f"socket activation: no socket of gRPC listens on {bound}")
    watchers = [_Registration(e, *target) for e in _descriptors() for target in _targets(e, listener)]
    if not watchers:
        raise SocketUnusable(
            "socket activation: this gRPC release does not watch its sockets by epoll",
            hint="keep systemd from making the socket (docs/troubleshooting.md); the daemon then does",
        )
    own = fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, 3)
    # The duplicate keeps gRPC's socket open, and with it its registrations, which go by open file.
    for watcher in watchers:
        _epoll_control(_EPOLL_CTL_DEL, watcher, listener)
    os.set_blocking(descriptor, False)
    _replace(listener, descriptor, watchers)
    return Adopted(listener, own, watchers)


def _replace(listener: int, descriptor: int, watchers: list[_Registration]) -> None:
    os.dup2(descriptor, listener, inheritable=False)
    os.close(descriptor)
    for watcher in watchers:
        _epoll_control(_EPOLL_CTL_ADD, watcher, listener)


def _descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]


@contextmanager
def _borrow(descriptor: int) -> Iterator[socket.socket]:
    """A socket object for a descriptor that stays open."""
    borrowed = socket.socket(fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _listens(candidate: socket.socket) -> bool:
    return bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _is_listener(descriptor: int, bound: Path) -> bool:
    try:
        with _borrow(descriptor) as candidate:
            return (
                candidate.family == socket.AF_UNIX
                and candidate.getsockname() == str(bound)
                and _listens(candidate)
            )
    except OSError:
        return False


def _targets(epoll: int, descriptor: int) -> Iterator[tuple[int, int]]:
    """How an epoll instance watches a descriptor: events and data; nothing for other kinds of files."""
    try:
        if os.readlink(f"/proc/self/fd/{epoll}") != "anon_inode:[eventpoll]":
            return
        text = Path(f"/proc/self/fdinfo/{epoll}").read_text()
    except OSError:
        return
    for watched, events, data in _TARGET.findall(text):
        if int(watched) == descriptor:
            yield int(events, 16), int(data, 16)


def _epoll_control(operation: int, watcher: _Registration, descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    event = _EpollEvent(watcher.events, watcher.data)
    if libc.epoll_ctl(watcher.epoll, operation, descriptor, ctypes.byref(event)) != 0:
        raise SocketUnusable(f"socket activation: epoll_ctl: {os.strerror(ctypes.get_errno())}")
