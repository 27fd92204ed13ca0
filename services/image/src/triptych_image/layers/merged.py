"""Looking into an image as if its layers were mounted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from triptych_image.layers.inroot import open_beneath
from triptych_image.layers.marks import hides_below

_LINKS_MAX = 40


def lookup(layers: Sequence[Path], path: str) -> os.stat_result:
    """What a path of the image is; symlinks are followed inside the image.

    :param layers: topmost first.
    :raises OSError: ENOENT, ENOTDIR, ELOOP as for a mounted image.
    """
    todo = [part for part in path.split("/") if part not in ("", ".")]
    done: list[str] = []
    links = 0
    found = os.stat(layers[0])
    while todo:
        part = todo.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        if part == ".":
            continue
        here = "/".join([*done, part])
        found, link = _entry(layers, "/".join(done), here)
        if link is not None:
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            todo = [piece for piece in link.split("/") if piece] + todo
            if link.startswith("/"):
                done = []
            continue
        if todo and not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)
        done.append(part)
    return found


def _entry(layers: Sequence[Path], parent: str, path: str) -> tuple[os.stat_result, str | None]:
    """The topmost entry of a name, and where it leads if it is a symlink."""
    for layer in layers:
        try:
            fd = open_beneath(layer, path)
        except FileNotFoundError:
            if hides_below(layer, parent):
                break
            continue
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                break  # something else on the way, under a directory of an upper layer
            raise
        try:
            info = os.fstat(fd)
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                break
            if stat.S_ISLNK(info.st_mode):
                return info, os.readlink("", dir_fd=fd)
            return info, None
        finally:
            os.close(fd)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
