"""Image archives on this node: OCI layouts (tar or directory) and docker archives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from triptych_oci import Descriptor, Digest

from triptych_image.errors import ImageMalformed, InvalidRequest, LayerMismatch
from triptych_image.offline.members import Archive, DirectoryArchive, Member, TarArchive
from triptych_image.offline.threads import in_thread, open_in_thread
from triptych_image.pull.reserve import within_reserve
from triptych_image.registry import SinkClosed
from triptych_image.settings import Settings
from triptych_image.store import Store, disk_error
from triptych_image.unpack.pool import UnpackWorkers
from triptych_image.unpack.worker import source
from triptych_image.unpack.worker.limits import RATIO_FLOOR

_DOCUMENT_MAX = 8 << 20
_CHUNK = 1 << 20


def read(member: Member | None, what: str) -> bytes:
    """A document of the archive.

    :raises ImageMalformed: when it is missing or too big.
    """
    if member is None:
        raise ImageMalformed(f"{what} is missing in the archive")
    if member.size > _DOCUMENT_MAX:
        raise ImageMalformed(f"{what} has {member.size} bytes, more than {_DOCUMENT_MAX}")
    try:
        fd = member.open()
        try:
            return os.pread(fd, member.size, member.offset)
        finally:
            os.close(fd)
    except OSError as error:
        raise ImageMalformed(f"{what}: {member.path}: {error.strerror}") from None


@contextlib.asynccontextmanager
async def opened(
    path: Path, store: Store, workers: UnpackWorkers, settings: Settings
) -> AsyncIterator[Archive]:
    """Open an archive; a packed one is unpacked to a scratch file first, by a worker and within limits.

    :raises InvalidRequest: when there is nothing to read.
    :raises ImageMalformed: when it is no archive.
    :raises LayerMalformed: when its packing is broken, or of no supported kind.
    :raises LayerTooLarge: when it unpacks to far more than it has.
    :raises DiskFull: when the scratch file finds no room.
    """
    if not await asyncio.to_thread(_is_packed, path):
        yield await asyncio.to_thread(_read_list, path)
        return
    scratch = store.paths.scratch()
    try:
        await _inflate(path, scratch, store, workers, settings)
        yield await asyncio.to_thread(_read_list, scratch)
    finally:
        await store.drop(scratch)


def _is_packed(path: Path) -> bool:
    try:
        # A FIFO would wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise InvalidRequest(f"path: {path}: neither a file nor a directory")
            return stat.S_ISREG(mode) and source.is_packed(os.pread(fd, source.HEAD, 0))
        finally:
            os.close(fd)
    except OSError as error:
        raise InvalidRequest(f"path: {path}: {error.strerror}") from None


def _read_list(path: Path) -> Archive:
    try:
        return DirectoryArchive(path) if path.is_dir() else TarArchive(path)
    except OSError as error:
        raise InvalidRequest(f"path: {path}: {error.strerror}") from None


async def _inflate(
    path: Path, scratch: Path, store: Store, workers: UnpackWorkers, settings: Settings
) -> None:
    with contextlib.ExitStack() as files:
        try:
            packed = await open_in_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
            files.callback(os.close, packed)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            out = await open_in_thread(os.open, scratch, flags, 0o600)
            files.callback(os.close, out)
        except OSError as error:
            raise disk_error(error, f"unpack {path}") from error
        ratio = settings.unpack.max_ratio
        async with workers.inflate(packed, out, ratio=ratio, ratio_floor=RATIO_FLOOR) as report:
            await within_reserve(report.result(f"unpack {path}"), store, settings)


class ArchiveSource:
    """Blobs of an archive, for the pull pipeline.

    :param blobs: by digest.
    """

    reference = ""

    def __init__(self, blobs: dict[Digest, Member]) -> None:
        self._blobs = blobs

    async def copy(self, descriptor: Descriptor, sink: int, offset: int, count: Any) -> str:
        """Send a blob into a pipe, by the kernel alone."""
        member = self._member(descriptor)
        os.set_blocking(sink, False)
        file = await open_in_thread(member.open)
        try:
            while offset < member.size:
                size = min(member.size - offset, _CHUNK)
                try:
                    sent = await in_thread(os.sendfile, sink, file, member.offset + offset, size)
                except BlockingIOError:
                    await _writable(sink)
                    continue
                except BrokenPipeError:
                    raise SinkClosed("the unpacker ended early") from None
                if sent == 0:
                    raise ImageMalformed(f"{member.path}: the archive ends too early")
                offset += sent
                count(sent)
        finally:
            os.close(file)
        return str(member.path)

    async def fetch(self, descriptor: Descriptor, count: Any) -> bytes:
        """A small blob whole."""
        member = self._member(descriptor)
        data = await asyncio.to_thread(read, member, f"blob {descriptor.digest}")
        if len(data) != descriptor.size or not descriptor.digest.matches(data):
            raise LayerMismatch(f"blob {descriptor.digest} of the archive has another digest")
        count(len(data))
        return data

    async def read(self, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        """A blob in chunks."""
        member = self._member(descriptor)
        file = await open_in_thread(member.open)
        try:
            while offset < member.size:
                size = min(member.size - offset, _CHUNK)
                chunk = await in_thread(os.pread, file, size, member.offset + offset)
                if not chunk:
                    raise ImageMalformed(f"{member.path}: the archive ends too early")
                offset += len(chunk)
                yield chunk
        finally:
            os.close(file)

    def distrust(self, descriptor: Descriptor) -> bool:
        """Nobody else has it."""
        return False

    def _member(self, descriptor: Descriptor) -> Member:
        member = self._blobs.get(descriptor.digest)
        if member is None:
            raise ImageMalformed(f"blob {descriptor.digest} is missing in the archive")
        return member


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(fd, wake)
    try:
        await ready
    finally:
        loop.remove_writer(fd)
