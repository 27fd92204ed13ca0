"""overlayfs's own attributes, which only the daemon may set (trusted.* takes CAP_SYS_ADMIN)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from triptych_image.errors import LayerMalformed
from triptych_image.layers.inroot import open_beneath

OPAQUE = "trusted.overlay.opaque"


def set_opaque(root: Path, directories: Iterable[str]) -> None:
    """Mark directories of a layer as opaque.

    :raises LayerMalformed: when one is not there, or no directory.
    :raises OSError: when the file system does not take the mark.
    """
    for directory in directories:
        try:
            fd = open_beneath(root, directory, os.O_DIRECTORY)
        except OSError as error:
            raise LayerMalformed(f"opaque directory {directory!r}: {error.strerror}") from error
        try:
            # An O_PATH descriptor takes no fsetxattr(2); its name in /proc is the very same inode.
            os.setxattr(f"/proc/self/fd/{fd}", OPAQUE, b"y")
        finally:
            os.close(fd)


def is_opaque(root: Path, directory: str) -> bool:
    """Whether a directory of a layer is marked as opaque; False when it is not there."""
    try:
        fd = open_beneath(root, directory)
    except OSError:
        return False
    try:
        return os.getxattr(f"/proc/self/fd/{fd}", OPAQUE) == b"y"
    except OSError:
        return False
    finally:
        os.close(fd)


def hides_below(root: Path, path: str) -> bool:
    """Whether a layer hides what lower layers have at a path: an opaque directory on the way."""
    while not is_opaque(root, path):
        if not path:
            return False
        path = path.rpartition("/")[0]
    return True


def make_hiding(root: Path, layers: Iterable[Path]) -> int:
    """Fill a directory with whiteouts of all that layers have in their roots; returns how many inodes."""
    names = {name for layer in layers for name in os.listdir(layer)}
    for name in names:
        os.mknod(root / name, stat.S_IFCHR, 0)
    return 1 + len(names)
