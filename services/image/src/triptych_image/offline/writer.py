"""An archive that is being written: members of a tar file, one after the other."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

from triptych_image.errors import InvalidRequest
from triptych_image.offline.threads import in_thread, open_in_thread
from triptych_image.store import disk_error
from triptych_image.unpack.worker.output import write_all

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_COPY_MAX = 1 << 24
_NAME_MAX = 200
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ArchiveWriter:
    """Made by `writing`.

    :ivar fd: the file, for who writes a payload himself between `begin` and `end`.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    async def put(self, name: str, data: bytes) -> None:
        """A member of bytes."""
        await in_thread(write_all, self.fd, header(name, len(data)) + data + bytes(-len(data) % _BLOCK))

    async def put_file(self, name: str, path: Path) -> int:
        """A member of a file's contents; returns their length."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            await in_thread(write_all, self.fd, header(name, size))
            position = 0
            while position < size:
                length = min(size - position, _COPY_MAX)
                sent = await in_thread(os.sendfile, self.fd, file.fileno(), position, length)
                if sent == 0:
                    raise OSError(f"{path} became shorter")
                position += sent
        await in_thread(write_all, self.fd, bytes(-size % _BLOCK))
        return size

    async def begin(self) -> int:
        """A member whose name and length are told to `end`, which wants what this returns."""
        start = os.lseek(self.fd, 0, os.SEEK_CUR)
        await in_thread(write_all, self.fd, bytes(_BLOCK))
        return start

    async def end(self, start: int, name: str, size: int) -> None:
        """The payload is written."""
        os.pwrite(self.fd, header(name, size), start)
        await in_thread(write_all, self.fd, bytes(-size % _BLOCK))

    async def finish(self) -> int:
        """The end of the archive, made durable; returns the size of all."""
        await in_thread(write_all, self.fd, _END)
        await in_thread(os.fsync, self.fd)
        return os.lseek(self.fd, 0, os.SEEK_CUR)


@contextlib.asynccontextmanager
async def writing(path: Path) -> AsyncIterator[ArchiveWriter]:
    """Write an archive, which appears under its name when the context is left without an error.

    :raises InvalidRequest: when the path cannot be written, or is something that must not be replaced.
    :raises DiskFull: when there is no room.
    """
    scratch = path.with_name(f".{path.name[:_NAME_MAX]}.{secrets.token_hex(8)}.part") if path.name else path
    fd = await open_in_thread(_create, path, scratch)
    try:
        yield ArchiveWriter(fd)
        await in_thread(os.rename, scratch, path)
    except OSError as error:
        raise disk_error(error, f"write {path}") from error
    finally:
        os.close(fd)
        scratch.unlink(missing_ok=True)


def header(name: str, size: int) -> bytes:
    """The header of a file."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _create(path: Path, scratch: Path) -> int:
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise InvalidRequest(f"path: {path} is no file to replace")
    try:
        return os.open(scratch, _CREATE, 0o600)
    except OSError as error:
        raise InvalidRequest(f"path: {scratch.parent}: {error.strerror}") from None
