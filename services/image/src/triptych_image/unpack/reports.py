"""What workers report, and one layer in their hands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from triptych_linux import process

from triptych_image.errors import DiskFull, LayerMalformed, LayerTooLarge, UnpackFailed

_REPORT_MAX: Final = 1 << 25
_STOP_SECONDS: Final = 5.0
_ERRORS: Final = {"malformed": LayerMalformed, "limit": LayerTooLarge, "disk": DiskFull}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a worker says of a layer.

    :param digest: of the packed bytes, by a process that does not look into them.
    :param packed: their number.
    :param diff_id: digest of the archive inside.
    :param unpacked: bytes of the archive.
    :param size: bytes on disk.
    :param complete: whether the tape gives the archive back.
    :param implied: directories that no entry named, by path ("" for the root).
    :param opaque: directories that want overlayfs's mark.
    """

    digest: str
    packed: int
    diff_id: str
    unpacked: int
    size: int
    inodes: int
    entries: int
    tape_bytes: int
    complete: bool
    implied: tuple[str, ...]
    opaque: tuple[str, ...]


@dataclass(slots=True)
class UnpackProgress:
    """How far a worker is; changes while it runs."""

    unpacked: int = 0
    entries: int = 0


@dataclass(slots=True)
class Report:
    """Reads the lines that a worker writes."""

    fd: int
    on_progress: Callable[[dict[str, Any]], None] | None = None
    _data: bytearray = field(default_factory=bytearray)
    _final: dict[str, Any] | None = None
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        os.set_blocking(self.fd, False)
        asyncio.get_running_loop().add_reader(self.fd, self._ready)

    def _ready(self) -> None:
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return
        if not data or len(self._data) > _REPORT_MAX:
            self.close()
            return
        self._data += data
        while (end := self._data.find(b"\n")) >= 0:
            line = bytes(self._data[:end])
            del self._data[: end + 1]
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            return
        if "result" in message or "error" in message:
            self._final = message
        elif self.on_progress is not None:
            self.on_progress(message)

    def close(self) -> None:
        """Stop listening."""
        if not self._done.is_set():
            self._done.set()
            asyncio.get_running_loop().remove_reader(self.fd)
            os.close(self.fd)

    async def ended(self) -> None:
        """Wait until the worker is gone."""
        await self._done.wait()

    async def result(self, step: str) -> dict[str, Any]:
        """Wait for the worker's end.

        :raises LayerMalformed, LayerTooLarge, DiskFull, UnpackFailed: as the worker says.
        """
        await self._done.wait()
        if self._final is None:
            raise UnpackFailed(f"{step}: the worker died", hint="see the daemon's log")
        if "error" in self._final:
            kind = _ERRORS.get(str(self._final["error"]), UnpackFailed)
            raise kind(f"{step}: {self._final.get('message')}")
        found = self._final["result"]
        if not isinstance(found, dict):
            raise UnpackFailed(f"{step}: the worker answered nonsense")
        return found


class LayerJob:
    """One layer being unpacked.

    :ivar sink: descriptor to write the packed bytes to; `finish_input` closes it.
    """

    def __init__(self, report: Report, forward: Report, sink: int) -> None:
        self.sink = sink
        self.progress = UnpackProgress()
        self._report = report
        self._forward = forward
        report.on_progress = self._on_progress

    def _on_progress(self, message: dict[str, Any]) -> None:
        self.progress.unpacked = int(message.get("unpacked", 0))
        self.progress.entries = int(message.get("entries", 0))

    def finish_input(self) -> None:
        """No more bytes come."""
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

    async def failed(self) -> None:
        """Wait until the unpacker has ended, which before the end of the input means that it failed."""
        await self._report.ended()

    async def result(self, what: str = "layer") -> Unpacked:
        """Wait for the end.

        :param what: names it in errors.
        :raises LayerMalformed, LayerTooLarge, DiskFull, UnpackFailed: as the worker says.
        """
        try:
            found = await self._report.result(f"unpack {what}")
        except LayerMalformed:
            # A forwarder that found no room for its spool cut the archive short.
            with contextlib.suppress(LayerMalformed, LayerTooLarge, UnpackFailed):
                await self._forward.result(f"keep {what}")
            raise
        hashed = await self._forward.result(f"read {what}")
        self.progress = UnpackProgress(int(found["unpacked"]), int(found["entries"]))
        return unpacked_of(found, str(hashed["digest"]), int(hashed["size"]))

    async def close(self) -> None:
        """End the workers by ending their input, and wait until nobody writes into the directory."""
        self.finish_input()
        ended = asyncio.gather(self._report.ended(), self._forward.ended())
        try:
            await process.shielded(_wait(ended), _STOP_SECONDS)
        finally:
            self._report.close()
            self._forward.close()


def unpacked_of(found: dict[str, Any], digest: str, packed: int) -> Unpacked:
    """From the unpacker's result, and what the forwarder or the daemon itself hashed."""
    return Unpacked(
        digest=digest,
        packed=packed,
        diff_id=str(found["diff_id"]),
        unpacked=int(found["unpacked"]),
        size=int(found["bytes"]),
        inodes=int(found["inodes"]),
        entries=int(found["entries"]),
        tape_bytes=int(found["tape_bytes"]),
        complete=bool(found["complete"]),
        implied=tuple(map(str, found["implied"])),
        opaque=tuple(map(str, found["opaque"])),
    )


async def _wait(ended: asyncio.Future[Any]) -> None:
    await ended
