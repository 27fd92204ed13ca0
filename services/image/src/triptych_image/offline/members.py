"""The files of an image archive: of a directory, and of a tar file that a stranger wrote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from triptych_image.errors import ImageMalformed
from triptych_image.unpack.worker.archive import Archive as LayerArchive
from triptych_image.unpack.worker.errors import Refused, malformed
from triptych_image.unpack.worker.limits import Limits
from triptych_image.unpack.worker.tape import NoTape

_MEMBERS_MAX = 100_000
_NAMES_MAX = 32 << 20
"""Bytes of all names and link targets; all of them are kept in memory."""
_LINKS_MAX = 8


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file of the archive lies."""

    path: Path
    offset: int
    size: int

    def open(self) -> int:
        """A descriptor of the file that it lies in.

        :raises OSError: when that is gone. A FIFO that took its place does not hold anybody up.
        """
        return os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


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
        """Blocking.

        :raises ImageMalformed: when it is no tar archive, or asks for more memory than one may.
        :raises OSError: when it cannot be read.
        """
        self._members: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        self._names = 0
        fd = Member(path, 0, 0).open()
        try:
            self._scan(path, _Headers(fd))
        except Refused as error:
            raise ImageMalformed(f"{path}: no tar archive: {error}") from None
        finally:
            os.close(fd)

    def _scan(self, path: Path, headers: _Headers) -> None:
        for entry in headers.members():
            self._names += len(entry.name) + len(entry.link)
            if self._names > _NAMES_MAX:
                raise ImageMalformed(f"{path}: the names of its members have more than {_NAMES_MAX} bytes")
            name, link = _clean(os.fsdecode(entry.name)), os.fsdecode(entry.link)
            if entry.kind == b"0" and entry.segments is None:
                self._members[name] = Member(path, headers.offset, entry.size)
            elif entry.kind == b"1":
                self._links[name] = _clean(link)
            elif entry.kind == b"2":
                self._links[name] = _clean(str(PurePosixPath(name).parent / link))
            headers.skip(entry.size)

    def find(self, name: str) -> Member | None:
        name = _clean(name)
        for _ in range(_LINKS_MAX):
            if name not in self._links:
                break
            name = self._links[name]
        return self._members.get(name)


class _Headers(LayerArchive):
    """The entries of an archive in a file: their payloads are passed over and not read.

    :ivar offset: where the payload of the entry begins that came last.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(iter(()), NoTape(), Limits(entries=_MEMBERS_MAX))
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self.offset = 0

    def _take(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self.offset)
        self.offset += len(data)
        return data

    def skip(self, size: int) -> None:
        """Go on behind a payload."""
        self.offset += size
        if self.offset > self._size:
            raise malformed("the archive ends too early")


def _clean(name: str) -> str:
    """A name inside the archive; `..` cannot lead out of it."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
