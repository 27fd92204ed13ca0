"""Image archives on this node: OCI layouts (tar or directory) and docker archives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from triptych_oci import Descriptor, Digest

from triptych_image.errors import ImageMalformed, InvalidRequest, LayerMismatch, LayerTooLarge
from triptych_image.offline.members import Archive, DirectoryArchive, Member, TarArchive
from triptych_image.pull.reserve import check_reserve
from triptych_image.registry import SinkClosed
from triptych_image.settings import Settings
from triptych_image.store import Store, disk_error
from triptych_image.unpack.worker import source
from triptych_image.unpack.worker.errors import Refused
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
    with member.path.open("rb") as file:
        return os.pread(file.fileno(), member.size, member.offset)


def read_json(member: Member | None, what: str) -> Any:
    """The same as JSON."""
    try:
        return msgspec.json.decode(read(member, what))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ImageMalformed(f"{what}: {error}") from None


class _Left(Exception):
    """Nobody waits for the archive any more."""


@contextlib.asynccontextmanager
async def opened(path: Path, store: Store, settings: Settings) -> AsyncIterator[Archive]:
    """Open an archive; a packed one is unpacked to a scratch file first, within limits.

    :raises InvalidRequest: when there is nothing to read.
    :raises ImageMalformed: when it is no archive.
    :raises LayerTooLarge: when it unpacks to far more than it has.
    :raises DiskFull: when the scratch file finds no room.
    """
    left = threading.Event()
    ratio = settings.unpack.max_ratio

    def check(read: int, written: int) -> None:
        if left.is_set():
            raise _Left
        if ratio and written > max(ratio * read, RATIO_FLOOR):
            raise LayerTooLarge(f"{path}: it unpacks to more than {ratio} times its size")
        check_reserve(store, settings)

    scratch = store.paths.scratch()
    opening = asyncio.ensure_future(asyncio.to_thread(_open, path, scratch, check))
    try:
        yield await asyncio.shield(opening)
    finally:
        left.set()
        try:
            await asyncio.wait([opening])
        finally:
            await store.drop(scratch)


def _open(path: Path, scratch: Path, check: Callable[[int, int], None]) -> Archive:
    """:param check: told after each piece the bytes read and written so far; what it raises ends it."""
    try:
        if path.is_dir():
            return DirectoryArchive(path)
        with path.open("rb") as file:
            packed = file.read(6)
        if not _is_packed(packed):
            return TarArchive(path)
    except OSError as error:
        raise InvalidRequest(f"path: {path}: {error.strerror}") from None
    try:
        _unpack(path, scratch, check)
        return TarArchive(scratch)
    except OSError as error:
        raise disk_error(error, f"unpack {path}") from error


def _is_packed(head: bytes) -> bool:
    return head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd"))


def _unpack(path: Path, scratch: Path, check: Callable[[int, int], None]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        packed, written = source.Input(fd), 0
        with scratch.open("xb") as out:
            for chunk in source.chunks(packed):
                out.write(chunk)
                written += len(chunk)
                check(packed.received, written)
    except Refused as error:
        raise ImageMalformed(f"{path}: {error}") from None
    finally:
        os.close(fd)


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
        file = await asyncio.to_thread(os.open, member.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while offset < member.size:
                size = min(member.size - offset, _CHUNK)
                try:
                    sent = await asyncio.to_thread(os.sendfile, sink, file, member.offset + offset, size)
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
        file = await asyncio.to_thread(os.open, member.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while offset < member.size:
                size = min(member.size - offset, _CHUNK)
                chunk = await asyncio.to_thread(os.pread, file, size, member.offset + offset)
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
