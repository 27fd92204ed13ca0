"""The process that stays: takes jobs from a socket and forks a confined child for each.

Forking from a process that has everything imported costs a millisecond instead of twenty, and the children
share its memory. Started by `pool`, in new namespaces, with the socket as standard input.
"""

from __future__ import annotations

import array
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable

from triptych_image.unpack.worker import confine, jobs

Job = Callable[[jobs.Request, list[int], Callable[[object], None]], dict[str, object]]

_MESSAGE = 1 << 16
_FDS = 8
_PLAIN: dict[object, Job] = {"verify": jobs.verify, "export": jobs.export, "inflate": jobs.inflate}
"""Jobs of one child, by the kind of the request."""


def main() -> None:
    """Serve until the socket ends."""
    control = socket.socket(fileno=os.dup(0))
    _preload()
    confine.leave_host()
    # The daemon learns of a child's end from its report pipe.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    gc.disable()
    while True:
        message, ancillary, _, _ = control.recvmsg(_MESSAGE, socket.CMSG_SPACE(_FDS * 4))
        if not message:
            return
        fds = _descriptors(ancillary)
        try:
            _start(json.loads(message), fds, control)
        finally:
            for fd in fds:
                os.close(fd)


def _preload() -> None:
    """Whatever a child needs later must be in memory: it has no files to import from."""
    import hashlib

    import isal.igzip_lib
    import isal.isal_zlib  # noqa: F401
    import zstandard

    for algorithm in ("sha256", "sha512"):
        hashlib.new(algorithm).update(b"")
    zstandard.ZstdDecompressor()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _start(request: jobs.Request, fds: list[int], control: socket.socket) -> None:
    """Fork for a job. Its report pipes come first among the descriptors."""
    kind = request["kind"]
    if kind == "unpack":
        # report of the unpacker, report of the forwarder, root, tape, input[, spool]
        report, forward_report, root, tape, *feed = fds
        out, into = os.pipe2(os.O_CLOEXEC)
        try:
            fork(report, [out, root, tape], lambda own, tell: jobs.unpack(request, own, tell), control)
            fork(
                forward_report,
                [*feed, into],
                lambda own, _: jobs.forward(request, own[:-1], own[-1]),
                control,
            )
        finally:
            os.close(out)
            os.close(into)
    elif kind == "unpack-verified":
        report, root, tape, packed = fds
        fork(report, [packed, root, tape], lambda own, tell: jobs.unpack(request, own, tell), control)
    elif job := _PLAIN.get(kind):
        fork(fds[0], fds[1:], lambda own, tell: job(request, own, tell), control)


def fork(
    report: int,
    fds: list[int],
    job: Callable[[list[int], Callable[[object], None]], dict[str, object]],
    control: socket.socket,
) -> None:
    """Run a job in a child that has its own descriptors and nothing else."""
    if os.fork():
        return
    status = 1
    try:
        control.close()
        report, *own = _only([report, *fds])
        tell = jobs.teller(report)
        jobs.run(lambda: job(own, tell), tell)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _only(fds: list[int]) -> list[int]:
    """Move descriptors to 3 and up in order and close all others."""
    top = max(*fds, 64) + 1
    moved = [os.dup2(fd, top + index, inheritable=False) for index, fd in enumerate(fds)]
    placed = [os.dup2(fd, 3 + index, inheritable=False) for index, fd in enumerate(moved)]
    os.closerange(3 + len(placed), top + len(fds) + 1)
    os.close(0)
    return placed


if __name__ == "__main__":
    main()
