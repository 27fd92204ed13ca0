"""Compares an unpacked layer with its archive, entry by entry."""

from __future__ import annotations

import os
import stat

from triptych_image.unpack.worker.archive import Archive
from triptych_image.unpack.worker.errors import show
from triptych_image.unpack.worker.header import Entry
from triptych_image.unpack.worker.names import OPAQUE, WHITEOUT, clean, in_meta

_PROBLEMS_MAX = 20
_TYPES = {
    b"0": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}


class Checker:
    """Runs in the layer's directory. The contents are proved by the archive's hash, not here.

    :ivar problems: sentences, at most 20.
    :ivar opaque: directories that must carry overlayfs's mark.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._expected: dict[bytes, tuple[int, int, int, int, int]] = {}
        self._links: dict[bytes, bytes] = {}
        self.problems: list[str] = []
        self.opaque: set[bytes] = set()

    def run(self) -> None:
        """Read the whole archive, then compare."""
        for entry in self._archive.members():
            for _ in self._archive.payload(entry.size):
                pass
            self._expect(entry)
        for path, wanted in self._expected.items():
            self._compare(path, wanted)
        for path, link in self._links.items():
            self._compare_link(path, link)

    def _expect(self, entry: Entry) -> None:
        path = clean(entry.name)
        base = path[path.rfind(b"/") + 1 :]
        if base == OPAQUE:
            self.opaque.add(path[: -len(base)].rstrip(b"/"))
        elif base.startswith(WHITEOUT) or in_meta(path):
            return
        elif entry.kind in _TYPES:
            size = entry.real_size if entry.segments is not None else entry.size
            self._links.pop(path, None)
            if entry.kind == b"2":
                self._links[path] = entry.link
            self._expected[path] = (_TYPES[entry.kind], entry.mode, entry.uid, entry.gid, size)
        else:
            self._expected.pop(path, None)

    def _compare(self, path: bytes, wanted: tuple[int, int, int, int, int]) -> None:
        kind, mode, uid, gid, size = wanted
        try:
            found = os.lstat(path or b".")
        except OSError as error:
            self._problem(path, error.strerror or "is missing")
            return
        if stat.S_IFMT(found.st_mode) != kind:
            self._problem(path, "is of another type")
        elif kind != stat.S_IFLNK and stat.S_IMODE(found.st_mode) != mode:
            self._problem(path, f"has mode {stat.S_IMODE(found.st_mode):o}, not {mode:o}")
        elif (found.st_uid, found.st_gid) != (uid, gid):
            self._problem(path, f"has owner {found.st_uid}:{found.st_gid}, not {uid}:{gid}")
        elif kind == stat.S_IFREG and found.st_size != size:
            self._problem(path, f"has {found.st_size} bytes, not {size}")

    def _compare_link(self, path: bytes, link: bytes) -> None:
        try:
            if os.readlink(path) != link:
                self._problem(path, "leads elsewhere")
        except OSError as error:
            self._problem(path, error.strerror or "is no symlink")

    def _problem(self, path: bytes, what: str) -> None:
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(f"{show(path or b'/')} {what}")

    def count_inodes(self) -> int:
        """Inodes of the tree, to notice what was added."""
        linked: set[int] = set()
        count = 1
        stack = [b"."]
        while stack:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        stack.append(entry.path)
                    elif info.st_nlink > 1:
                        if info.st_ino in linked:
                            continue
                        linked.add(info.st_ino)
                    count += 1
        return count
