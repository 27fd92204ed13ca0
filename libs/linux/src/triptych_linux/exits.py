"""Exit codes of processes that are not ours, as the kernel tells them.

The process connector (Documentation/driver-api/connector.rst, linux/cn_proc.h; CAP_NET_ADMIN, in the initial
PID and user namespaces only) sends a message for each process that ends on the node. Nothing else tells how
a process ended that somebody else reaps, before Linux 6.15.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = 1
_LISTEN, _IGNORE = 1, 2
_EXIT = 0x80000000
_NLMSG_DONE = 3
#: nlmsghdr, cn_msg without its data, and the operation.
_ORDER = struct.Struct("=IHHII IIIIHH I")
#: In a message: what happened, CPU, nanoseconds, then PID, thread group, status as wait(2) has it, signal.
_EVENT = struct.Struct("=IIQ iiIi")
_EVENT_AT = 16 + 20
_KEPT = 1024
_SO_ATTACH_FILTER = 26
_RECEIVE_BUFFER = 1 << 20


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


class Exits:
    """The ends of processes since `record` was entered."""

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self._codes: dict[int, int] = {}

    def code(self, pid: int) -> int | None:
        """How a process ended, 0 to 255 or 128 + signal; None when it has not, or nobody tells."""
        self.drain()
        return self._codes.get(pid)

    def drain(self) -> None:
        """Take in what the kernel has sent."""
        while self._connection is not None:
            try:
                message = self._connection.recv(4096)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost, and the next call goes on behind them
                continue
            if len(message) >= _EVENT_AT + _EVENT.size:
                what, _, _, pid, group, status, _ = _EVENT.unpack_from(message, _EVENT_AT)
                if what == _EXIT and pid == group:
                    self._keep(pid, os.waitstatus_to_exitcode(status & 0xFFFF))

    def _keep(self, pid: int, code: int) -> None:
        self._codes.pop(pid, None)
        self._codes[pid] = code if code >= 0 else 128 - code
        if len(self._codes) > _KEPT:
            del self._codes[next(iter(self._codes))]


@contextlib.contextmanager
def record() -> Iterator[Exits]:
    """Record how processes of this node end, while the context lasts; within a running event loop.

    Where the kernel does not tell us, for lack of right or in a PID namespace, nothing is recorded.
    """
    connection = _connect()
    if connection is None:
        yield Exits(None)
        return
    loop = asyncio.get_running_loop()
    exits = Exits(connection)
    try:
        loop.add_reader(connection, exits.drain)
        yield exits
    finally:
        loop.remove_reader(connection)
        with contextlib.suppress(OSError):
            _order(connection, _IGNORE)
        connection.close()


def _connect() -> socket.socket | None:
    try:
        connection = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_CONNECTOR
        )
    except OSError:
        return None
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        _exits_only(connection)
        connection.bind((0, _CN_IDX_PROC))
        _order(connection, _LISTEN)
    except OSError:
        connection.close()
        return None
    return connection


def _exits_only(connection: socket.socket) -> None:
    """Let the kernel drop every other message: forks and execs are many."""
    wanted = socket.htonl(_EXIT)  # a filter loads words in network order
    code = (_Instruction * 4)(
        _Instruction(0x20, 0, 0, _EVENT_AT),  # load the word that says what happened
        _Instruction(0x15, 0, 1, wanted),  # go on if it is an exit, else skip one
        _Instruction(0x06, 0, 0, 0xFFFFFFFF),  # take it
        _Instruction(0x06, 0, 0, 0),  # drop it
    )
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(_Program(4, code)))


def _order(connection: socket.socket, operation: int) -> None:
    connection.send(
        _ORDER.pack(_ORDER.size, _NLMSG_DONE, 0, 0, 0, _CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0, operation)
    )
