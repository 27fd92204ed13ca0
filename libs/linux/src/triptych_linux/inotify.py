"""Told by the kernel about changes of directories: inotify(7) on the event loop."""

from __future__ import annotations

import asyncio
import ctypes
import enum
import os
import struct
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_HEADER = struct.Struct("iIII")
_BUFFER = 1 << 16


class Change(enum.IntFlag):
    """IN_* of inotify(7)."""

    MODIFY = 0x2
    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x01000000

    @classmethod
    def entries(cls) -> Change:
        """Everything that changes which files a directory holds, or what is in them."""
        return (
            cls.CLOSE_WRITE
            | cls.MOVED_FROM
            | cls.MOVED_TO
            | cls.CREATE
            | cls.DELETE
            | cls.DELETE_SELF
            | cls.MOVE_SELF
        )


class Inotify:
    """A set of watches; calls `heard(watch, change, name)` on the event loop for each event.

    `name` is that of the directory's entry, "" for the watched thing itself; an overflow of the kernel's
    queue has watch -1.
    """

    def __init__(self, heard: Callable[[int, Change, str], None]) -> None:
        self._heard = heard
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._ready)

    def watch(self, path: str | os.PathLike[str], mask: Change) -> int:
        """Watch a path; watching it again replaces the mask and gives the same number.

        :raises OSError: ENOENT when it is not there, ENOSPC at the limit of watches.
        """
        watch: int = _libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(int(mask)))
        if watch < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(path))
        return watch

    def forget(self, watch: int) -> None:
        """Stop a watch; nothing happens when the kernel dropped it already."""
        _libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        """Stop all watches."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ready(self) -> None:
        try:
            data = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _cookie, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            self._heard(watch, Change(mask), name)
