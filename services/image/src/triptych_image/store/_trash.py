"""Taking files out of sight at once, and freeing them later.

What lies in a writable layer is a container's: directories a thousand levels deep, immutable files. None of
that may hold up a removal, keep the daemon from starting, or stop the freeing of what lies beside it.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from triptych_image.store.paths import Paths

log = logging.getLogger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def discard(paths: Paths, path: Path) -> None:
    """Take a file or directory out of sight; `empty_trash` frees it. Missing is fine, and nothing raises."""
    try:
        try:
            os.rename(path, paths.discarded())
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # The writable layers may lie on another file system.
            paths.rootfs_trash.mkdir(mode=0o700, exist_ok=True)
            os.rename(path, paths.rootfs_trash / _fresh())
    except FileNotFoundError:
        return
    except OSError:
        # On a full disk the trash may find no room for one more name.
        _report(path, _free(path))


def empty_trash(paths: Paths) -> None:
    """Free what was discarded, as far as the kernel lets it go. Blocking, and may take seconds."""
    for trash in (paths.trash, paths.rootfs_trash):
        if trash.is_dir():
            _report(trash, _clear(trash))


def _report(path: Path, errors: Iterator[OSError]) -> None:
    first = next(errors, None)
    if first is not None:
        failed = 1 + sum(1 for _ in errors)
        extra = {"path": str(path), "failed": failed, "error": str(first)}
        log.warning("cannot free all that was removed", extra=extra)


def _free(path: Path) -> Iterator[OSError]:
    try:
        if path.is_dir() and not path.is_symlink():
            yield from _clear(path)
            path.rmdir()
        else:
            path.unlink()
    except OSError as error:
        yield error


def _clear(directory: Path) -> Iterator[OSError]:
    """Remove all that a directory holds; gives what went wrong.

    Directories below are moved up into it before they are emptied, so that no depth takes a stack,
    descriptors or a long path.
    """
    top = os.open(directory, _DIRECTORY)
    try:
        stuck: set[str] = set()
        more = True
        while more:
            more = False
            with os.scandir(top) as entries:
                for entry in entries:
                    if entry.name in stuck:
                        continue
                    more = True
                    for error in _remove(entry, top, top):
                        stuck.add(entry.name)
                        yield error
    finally:
        os.close(top)


def _remove(entry: os.DirEntry[str], parent: int, top: int) -> Iterator[OSError]:
    """Remove an entry of `parent`; what is a directory in another than `top` is moved there instead."""
    try:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.name, dir_fd=parent)
        elif parent != top:
            os.rename(entry.name, _fresh(), src_dir_fd=parent, dst_dir_fd=top)
        else:
            yield from _hollow(entry.name, top)
            os.rmdir(entry.name, dir_fd=top)
    except OSError as error:
        yield error


def _hollow(name: str, top: int) -> Iterator[OSError]:
    fd = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                yield from _remove(entry, fd, top)
    finally:
        os.close(fd)


def _fresh() -> str:
    return secrets.token_hex(8)
