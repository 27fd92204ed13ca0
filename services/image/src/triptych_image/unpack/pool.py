"""Starts unpack workers and talks to them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from triptych_linux import mounts, process

from triptych_image.errors import UnpackFailed
from triptych_image.unpack.reports import LayerJob, Report, Unpacked, unpacked_of

log = logging.getLogger(__name__)

_NODEV_NOSUID_NOEXEC: Final = 0x2 | 0x4 | 0x8
_PIPE_BYTES: Final = 1 << 20
_NAMESPACES: Final = ("--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child=SIGKILL")
_BOOT: Final = (
    "import sys; sys.path[:0] = sys.argv[1:]; from triptych_image.unpack.worker.main import main; main()"
)


@dataclass(frozen=True, slots=True)
class LayerLimits:
    """What a layer may ask for; 0 is no limit.

    :param bytes: unpacked.
    :param ratio: unpacked to packed, once more than a GiB is unpacked.
    """

    bytes: int = 0
    entries: int = 0
    ratio: int = 0


class UnpackWorkers:
    """The process that forks workers; started with the first job, ended when idle.

    :param idle_seconds: how long it stays without work.
    """

    def __init__(self, idle_seconds: float = 10.0) -> None:
        self._idle_seconds = idle_seconds
        self._child: process.Child | None = None
        self._socket: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._jobs = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Future[int]] = set()

    async def close(self) -> None:
        """End it, and with it every job."""
        self._retire()
        if self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    async def warm(self) -> None:
        """Start it before the first job needs it."""
        async with self._job():
            pass

    @contextlib.asynccontextmanager
    async def unpack(
        self,
        root: Path,
        tape: int,
        limits: LayerLimits,
        *,
        algorithm: str = "sha256",
        spool: int | None = None,
    ) -> AsyncIterator[LayerJob]:
        """Start unpacking into an empty directory.

        Leaving the context ends the workers, if they are not done, and waits for that.

        :param tape: descriptor of an empty file.
        :param spool: descriptor of a file: what it has is taken first, what comes is appended.
        """
        async with self._job(), contextlib.AsyncExitStack() as stack:
            mount = _open_confined(root)
            stack.callback(os.close, mount)
            report, told = _report(stack)
            forward_report, forward_told = _report(stack)
            feed, sink = os.pipe2(os.O_CLOEXEC)
            with contextlib.suppress(OSError):
                import fcntl

                fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            request = {
                "kind": "unpack",
                "algorithm": algorithm,
                "limits": _wire(limits),
            }
            fds = [told, forward_told, mount, tape, feed, *([] if spool is None else [spool])]
            job = LayerJob(report, forward_report, sink)
            stack.push_async_callback(job.close)
            try:
                self._send(request, fds)
            finally:
                for fd in (told, forward_told, feed):
                    os.close(fd)
            yield job

    async def unpack_verified(
        self, root: Path, tape: int, limits: LayerLimits, digest: str, data: bytes
    ) -> Unpacked:
        """Unpack a layer that is in memory, and whose digest was proved.

        :raises LayerMalformed, LayerTooLarge, DiskFull, UnpackFailed: as the worker says.
        """
        async with self._job(), contextlib.AsyncExitStack() as stack:
            mount = _open_confined(root)
            stack.callback(os.close, mount)
            packed = os.memfd_create("layer", os.MFD_CLOEXEC)
            stack.callback(os.close, packed)
            os.write(packed, data)
            os.lseek(packed, 0, os.SEEK_SET)
            report, told = _report(stack)
            # Nothing may remove the directory while the worker lives.
            stack.push_async_callback(report.ended)
            try:
                self._send({"kind": "unpack-verified", "limits": _wire(limits)}, [told, mount, tape, packed])
            finally:
                os.close(told)
            return unpacked_of(await report.result(f"unpack layer {digest}"), digest, len(data))

    async def verify(self, root: Path, tape: int) -> dict[str, Any]:
        """Play a layer's tape and compare; gives `diff_id`, `problems`, `inodes`, `opaque`."""
        async with self._job(), contextlib.AsyncExitStack() as stack:
            mount = _open_confined(root)
            stack.callback(os.close, mount)
            report, told = _report(stack)
            try:
                self._send({"kind": "verify"}, [told, mount, tape])
            finally:
                os.close(told)
            return await report.result("verify")

    @contextlib.asynccontextmanager
    async def export(self, root: Path, tape: int, out: int, *, gzip: bool) -> AsyncIterator[Report]:
        """Play a layer's archive into a descriptor; await the report's `result("export")` for its end.

        Leaving the context earlier ends the worker with its next word.
        """
        async with self._job(), contextlib.AsyncExitStack() as stack:
            mount = _open_confined(root)
            stack.callback(os.close, mount)
            report, told = _report(stack)
            try:
                self._send({"kind": "export", "gzip": gzip}, [told, mount, tape, out])
            finally:
                os.close(told)
            yield report

    @contextlib.asynccontextmanager
    async def inflate(self, packed: int, out: int, *, ratio: int, ratio_floor: int) -> AsyncIterator[Report]:
        """Unpack a packed archive into a file; await the report's `result` for its end.

        Leaving the context earlier ends the worker with its next word.

        :param packed: descriptor of the archive, at its beginning.
        :param ratio: how many times its size it may have, once that exceeds `ratio_floor`; 0 for no limit.
        """
        async with self._job(), contextlib.AsyncExitStack() as stack:
            report, told = _report(stack)
            limits = {"ratio": ratio, "ratio_floor": ratio_floor}
            try:
                self._send({"kind": "inflate", "limits": limits}, [told, packed, out])
            finally:
                os.close(told)
            yield report

    @contextlib.asynccontextmanager
    async def _job(self) -> AsyncIterator[None]:
        self._jobs += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            async with self._starting:
                if self._child is not None and self._child.popen.poll() is not None:
                    self._retire()
                if self._child is None:
                    await self._start()
            yield
        finally:
            self._jobs -= 1
            if self._jobs == 0:
                self._timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire)

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = ["unshare", *_NAMESPACES, sys.executable, "-I", "-S", "-c", _BOOT, *_import_paths()]
            self._child = await process.spawn(
                argv, step="start the unpack worker", stdin=theirs.fileno(), stderr=2
            )
        self._socket = ours

    def _retire(self) -> None:
        """Close the socket, upon which the process ends; it is reaped in the background."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        child, self._child = self._child, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if child is not None:
            task = asyncio.ensure_future(child.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _send(self, request: dict[str, Any], fds: Sequence[int]) -> None:
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], list(fds))
        except OSError as error:
            self._retire()
            raise UnpackFailed(f"unpack: the worker does not listen: {error.strerror}") from error


def _wire(limits: LayerLimits) -> dict[str, int]:
    return {"bytes": limits.bytes, "entries": limits.entries, "ratio": limits.ratio}


def _report(stack: contextlib.AsyncExitStack) -> tuple[Report, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    report = Report(read)
    stack.callback(report.close)
    return report, write


def _open_confined(path: Path) -> int:
    """A detached mount of a directory on which devices cannot be opened."""
    tree = mounts.clone_tree(path)
    try:
        mounts.set_attributes(tree, attr_set=_NODEV_NOSUID_NOEXEC)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _import_paths() -> list[str]:
    """Where `triptych_image` and the decompressors are, for an interpreter that starts without site."""
    paths: list[str] = []
    for name in ("triptych_image", "isal", "zstandard"):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise UnpackFailed(f"start the unpack worker: the package {name} is not installed")
        path = str(Path(spec.submodule_search_locations[0]).parent)
        if path not in paths:
            paths.append(path)
    return paths
