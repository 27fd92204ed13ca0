"""The directory that a layer is applied to: what it holds by now, and what is in an entry's way."""

from __future__ import annotations

import os
import stat

from triptych_image.unpack.worker.errors import limit
from triptych_image.unpack.worker.limits import LISTED_BYTES_MAX, LISTED_MAX
from triptych_image.unpack.worker.tape import NoTape, TapeWriter

BLOCK = 4096


class Counts:
    """What the layer holds: disk bytes in blocks, and inodes."""

    __slots__ = ("bytes", "inodes")

    def __init__(self) -> None:
        self.bytes = BLOCK
        self.inodes = 1


class Target:
    """The current directory, chrooted into.

    :ivar implied: directories that no entry named, made because something lies in them; as the kernel finds
        them, so through no symlink.
    :ivar opaque: directories that hide what lower layers have in them; likewise.
    :ivar times: of directories that an entry named; set in the end, since entries change them.
    :ivar default_acls: of directories, set in the end: what is made in them would take them for its own.
    :ivar sparse: bytes that files with holes hold, by inode number.
    :ivar group_inherited: a directory hands its group to what is made in it (setgid).
    """

    def __init__(self, tape: TapeWriter | NoTape) -> None:
        self._tape = tape
        self.counts = Counts()
        self.implied: set[bytes] = {b""}
        self.opaque: set[bytes] = set()
        self.times: dict[bytes, int] = {}
        self.default_acls: dict[bytes, bytes] = {}
        self.sparse: dict[int, int] = {}
        self.group_inherited = False
        self._listed = 0

    def make_room(self, path: bytes, error: OSError, *, directory: bool = False) -> None:
        """Mend what stopped an entry: parents that are missing, or an older entry of the same name."""
        if isinstance(error, FileExistsError):
            hidden = self._remove(path)
            if hidden and directory:
                self.note(self.opaque, path)
        elif isinstance(error, FileNotFoundError | NotADirectoryError):
            self.ensure_directory(path.rpartition(b"/")[0])
            if os.path.lexists(path):
                self.make_room(path, FileExistsError(17, "File exists"), directory=directory)
        else:
            raise error

    def ensure_directory(self, path: bytes) -> None:
        """Make implied directories; a whiteout on the way gives way to an opaque directory."""
        done = b""
        for part in path.split(b"/") if path else ():
            done = done + b"/" + part if done else part
            try:
                os.mkdir(done, 0o755)
            except FileExistsError:
                found = os.stat(done) if os.path.exists(done) else os.lstat(done)
                if stat.S_ISDIR(found.st_mode):
                    continue
                if not _is_whiteout(found):
                    raise
                os.unlink(done)
                self.counts.inodes -= 1
                os.mkdir(done, 0o755)
                self.note(self.opaque, done)
            if self.group_inherited:
                os.chown(done, 0, 0)
                os.chmod(done, 0o755)
            self.count_directory()
            self.note(self.implied, done)

    def _remove(self, path: bytes) -> bool:
        """Remove an older entry of this layer; tells whether it was a whiteout."""
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(path)
            self._forget(found)
            return _is_whiteout(found)
        real = resolve(path)
        stack = [path]
        while stack:
            top = stack[-1]
            with os.scandir(top) as entries:
                below = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for name, is_directory in below:
                if is_directory:
                    stack.append(name)
                else:
                    info = os.lstat(name)
                    os.unlink(name)
                    self._forget(info)
            if stack[-1] == top:
                os.rmdir(top)
                stack.pop()
                self.counts.inodes -= 1
                self.counts.bytes -= BLOCK
                self.times.pop(top, None)
                self.default_acls.pop(top, None)
                self.implied.discard(real + top[len(path) :])
                self.opaque.discard(real + top[len(path) :])
        return False

    def _forget(self, info: os.stat_result) -> None:
        """A name is gone, whose content the tape may look for under it; with the last name, the file too."""
        if stat.S_ISREG(info.st_mode) and info.st_size:
            self._tape.complete = False
        if info.st_nlink == 1:
            self.counts.inodes -= 1
            if stat.S_ISREG(info.st_mode):
                self.counts.bytes -= (self.sparse.pop(info.st_ino, info.st_size) + BLOCK - 1) & -BLOCK

    def count_directory(self) -> None:
        """A directory was made."""
        self.counts.inodes += 1
        self.counts.bytes += BLOCK

    def named(self, path: bytes) -> None:
        """An entry names a directory that there is."""
        others = len(self.implied) > (b"" in self.implied)
        self.implied.discard(resolve(path) if path and others else path)

    def note(self, where: set[bytes], path: bytes) -> None:
        """Remember a directory as implied or opaque.

        :raises Refused: when there are too many for a report.
        """
        real = resolve(path)
        if real in where:
            return
        where.add(real)
        self._listed += len(real)
        if len(where) > LISTED_MAX or self._listed > LISTED_BYTES_MAX:
            most = f"{LISTED_MAX} directories, or {LISTED_BYTES_MAX} bytes of names"
            raise limit(f"more than {most}, are implied or opaque")


def resolve(path: bytes) -> bytes:
    """What a path leads to inside the root, without the symlinks that the archive has on the way."""
    return os.path.realpath(path)[1:]


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
