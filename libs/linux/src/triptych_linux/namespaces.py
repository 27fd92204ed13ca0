"""Namespaces: flags, threads that live in one, and pins (bind mounts of /proc/PID/ns/X).

unshare(2) and setns(2) act on one thread. What must happen inside a namespace runs in a thread made for
it, which ends with the work: no thread of a pool ever changes namespace.
"""

from __future__ import annotations

import asyncio
import enum
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from triptych_linux import mounts, syscalls

T = TypeVar("T")


class Namespace(enum.Enum):
    """A kind of namespace by the name of its file in /proc/PID/ns."""

    CGROUP = "cgroup"
    IPC = "ipc"
    MOUNT = "mnt"
    NETWORK = "net"
    PID = "pid"
    USER = "user"
    UTS = "uts"

    @property
    def clone_flag(self) -> int:
        """CLONE_NEW* of clone(2)."""
        return _CLONE_FLAGS[self]


_CLONE_FLAGS = {
    Namespace.MOUNT: 0x00020000,
    Namespace.CGROUP: 0x02000000,
    Namespace.UTS: 0x04000000,
    Namespace.IPC: 0x08000000,
    Namespace.USER: 0x10000000,
    Namespace.PID: 0x20000000,
    Namespace.NETWORK: 0x40000000,
}
CLONE_FS = 0x00000200


def run_in_thread(function: Callable[[], T]) -> T:
    """Run `function` in a fresh thread and wait for it; for work that changes the thread's namespaces."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


async def in_thread(function: Callable[[], T]) -> T:
    """`run_in_thread` for the event loop: does not block it, and needs no pool thread.

    A cancelled caller stops waiting; the thread still finishes its work.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def body() -> None:
        value: T | None = None
        error: BaseException | None = None
        try:
            value = function()
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=body, name="namespace", daemon=True).start()
    return await future


def enter(path: str | os.PathLike[str], kind: Namespace) -> None:
    """Move the calling thread into the namespace pinned at `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, kind.clone_flag)
    finally:
        os.close(fd)


def unshare(*kinds: Namespace) -> None:
    """Give the calling thread new namespaces of these kinds."""
    flags = 0
    for kind in kinds:
        flags |= kind.clone_flag
    syscalls.unshare(flags)


def pin(kind: Namespace, target: Path, *, task: str = "thread-self") -> None:
    """Keep a task's namespace alive as a bind mount on the file `target`, which is made.

    :param task: below /proc: "thread-self", or a process ID.
    """
    target.touch(mode=0o444)
    mounts.mount(f"/proc/{task}/ns/{kind.value}", target, None, mounts.Flag.BIND)


def is_pinned(target: str | os.PathLike[str]) -> bool:
    """Whether a namespace is pinned on a file; one whose pin was unmounted is an ordinary file."""
    try:
        return os.stat(target).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def unpin(target: Path) -> None:
    """Undo `pin`; nothing there is no error."""
    mounts.umount_all(target)
    target.unlink(missing_ok=True)
