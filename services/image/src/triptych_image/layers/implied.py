"""Directories that an archive implies.

An archive may hold "a/b" without an entry for "a". What the image means is the "a" of the layers below, with
its mode and owner; but layers are unpacked independently, so the worker makes "a" as 0755 root:root, which
would hide the right one because overlayfs takes a directory's attributes from the topmost layer that has it.

When an image is put together, `repair` finds such directories and, if one is wrong, makes one more layer on
top that holds nothing but them. That is rare: builders write entries for all directories.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych_image.layers.inroot import open_beneath


@dataclass(frozen=True, slots=True)
class LayerTree:
    """A layer to look at.

    :param implied: directories that its archive had no entry for.
    :param opaque: directories that hide what lower layers have in them.
    """

    root: Path
    implied: frozenset[str]
    opaque: frozenset[str] = frozenset()

    def hides(self, path: str) -> bool:
        """Whether lower layers' contents of a directory, or what is below it, are hidden."""
        if not self.opaque:
            return False
        while path not in self.opaque:
            if not path:
                return False
            path = path.rpartition("/")[0]
        return True


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a directory should have."""

    mode: int
    uid: int
    gid: int
    xattrs: tuple[tuple[str, bytes], ...]
    mtime_ns: int

    def same_access(self, other: Attributes) -> bool:
        """Whether they differ in nothing but time."""
        return (self.mode, self.uid, self.gid, self.xattrs) == (
            other.mode,
            other.uid,
            other.gid,
            other.xattrs,
        )


DEFAULT = Attributes(0o755, 0, 0, (), 0)


def attributes(layers: Sequence[LayerTree], path: str) -> Attributes:
    """What a directory of the image should have, by the topmost layer that names it.

    :param layers: topmost first.
    """
    for layer in layers:
        found = _look(layer.root, path)
        if found is not None and not isinstance(found, Attributes):
            return DEFAULT  # hidden by a whiteout or another file: what is above made it anew
        if found is not None and path not in layer.implied:
            return found
        # An opaque directory hides what is in it, and itself goes on.
        if path and layer.hides(path.rpartition("/")[0]):
            return DEFAULT
    return DEFAULT


def wrong(layers: Sequence[LayerTree]) -> dict[str, Attributes]:
    """Directories whose topmost appearance is implied and not what a lower layer says.

    :param layers: topmost first.
    """
    found: dict[str, Attributes] = {}
    for path in sorted({path for layer in layers for path in layer.implied if path}):
        for index, layer in enumerate(layers):
            seen = _look(layer.root, path)
            if seen is None:
                if layer.hides(path):
                    break  # the image has no such directory
                continue
            if isinstance(seen, Attributes) and path in layer.implied:
                right = attributes(layers[index:], path)
                if not right.same_access(seen):
                    found[path] = right
            break
    return found


def make_repair(root: Path, layers: Sequence[LayerTree], repairs: dict[str, Attributes]) -> int:
    """Fill a directory with what `wrong` found, and the directories above; returns the number of inodes."""
    needed: dict[str, Attributes] = dict(repairs)
    for path in repairs:
        parent = path.rpartition("/")[0]
        while parent:
            needed.setdefault(parent, attributes(layers, parent))
            parent = parent.rpartition("/")[0]
    for path in sorted(needed):
        os.mkdir(root / path)
    needed[""] = attributes(layers, "")
    for path in sorted(needed, reverse=True):
        _set(root / path, needed[path])
    return len(needed)


def _set(path: Path, wanted: Attributes) -> None:
    os.chown(path, wanted.uid, wanted.gid)
    os.chmod(path, wanted.mode)
    for name, value in wanted.xattrs:
        os.setxattr(path, name, value)
    os.utime(path, ns=(wanted.mtime_ns, wanted.mtime_ns))


def _look(root: Path, path: str) -> Attributes | str | None:
    """A directory's attributes, "other" for anything else of that name, None when it is not there."""
    try:
        fd = open_beneath(root, path)
    except NotADirectoryError:
        return "other"
    except OSError:
        return None
    try:
        info = os.fstat(fd)
        if not stat.S_ISDIR(info.st_mode):
            return "other"
        name = f"/proc/self/fd/{fd}"
        xattrs = tuple(
            (key, os.getxattr(name, key))
            for key in sorted(os.listxattr(name))
            if not key.startswith("trusted.")
        )
        return Attributes(stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, xattrs, info.st_mtime_ns)
    finally:
        os.close(fd)
