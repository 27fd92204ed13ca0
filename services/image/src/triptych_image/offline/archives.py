"""Image archives on this node: OCI layouts (tar or directory) and docker archives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import msgspec
from triptych_oci import Descriptor, Digest

from triptych_image.errors import ImageMalformed, InvalidRequest, LayerMismatch
from triptych_image.registry import SinkClosed

_DOCUMENT_MAX = 8 << 20
_MEMBERS_MAX = 100_000
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file of the archive lies."""

    path: Path
    offset: int
    size: int


class Archive(Protocol):
    """Files by name."""

    def find(self, name: str) -> Member | None:
        """A file, or None."""


class DirectoryArchive:
    """An OCI layout as a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, name: str) -> Member | None:
        path = self._root / _clean(name)
        try:
            return Member(path, 0, path.stat().st_size) if path.is_file() else None
        except OSError:
            return None


class TarArchive:
    """A tar file; symlinks and hard links between members are followed, as docker writes them."""

    def __init__(self, path: Path) -> None:
        self._members: dict[str, Member] = {}
        links: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for index, item in enumerate(archive):
                    if index > _MEMBERS_MAX:
                        raise ImageMalformed(f"{path}: more than {_MEMBERS_MAX} members")
                    name = _clean(item.name)
                    if item.isreg():
                        self._members[name] = Member(path, item.offset_data, item.size)
                    elif item.issym():
                        links[name] = _clean(str(PurePosixPath(name).parent / item.linkname))
                    elif item.islnk():
                        links[name] = _clean(item.linkname)
                    archive.members = []  # type: ignore[attr-defined]  # the list of what was read would grow with the archive
        except (tarfile.TarError, EOFError) as error:
            raise ImageMalformed(f"{path}: no tar archive: {error}") from None
        self._links = links

    def find(self, name: str) -> Member | None:
        name = _clean(name)
        for _ in range(8):
            if name not in self._links:
                break
            name = self._links[name]
        return self._members.get(name)


def _clean(name: str) -> str:
    """A name inside the archive; `..` cannot lead out of it."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


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


@contextlib.contextmanager
def opened(path: Path, scratch: Path) -> Iterator[Archive]:
    """Open an archive; a packed one is unpacked to a scratch file first. Blocking.

    :raises InvalidRequest: when there is nothing to read.
    :raises ImageMalformed: when it is no archive.
    """
    try:
        if path.is_dir():
            yield DirectoryArchive(path)
            return
        with path.open("rb") as file:
            packed = file.read(6)
    except OSError as error:
        raise InvalidRequest(f"path: {path}: {error.strerror}") from None
    if not _is_packed(packed):
        yield TarArchive(path)
        return
    try:
        _unpack(path, scratch)
        yield TarArchive(scratch)
    finally:
        scratch.unlink(missing_ok=True)


def _is_packed(head: bytes) -> bool:
    return head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd"))


def _unpack(path: Path, scratch: Path) -> None:
    from triptych_image.unpack.worker import source
    from triptych_image.unpack.worker.errors import Refused

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with scratch.open("xb") as out:
            for chunk in source.chunks(source.Input(fd)):
                out.write(chunk)
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

    async def read(self, descriptor: Descriptor) -> AsyncIterator[bytes]:
        """A blob in chunks."""
        member = self._member(descriptor)
        file = await asyncio.to_thread(os.open, member.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            offset = 0
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
