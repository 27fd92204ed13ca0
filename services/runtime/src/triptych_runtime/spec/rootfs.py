"""Reading single files of a root filesystem that is not mounted, without ever leaving it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from triptych_errors import FailedPrecondition

MAX_USER_FILE: Final = 10 << 20
_MAX_LINKS: Final = 40
_OPAQUE: Final = ("trusted.overlay.opaque", "user.overlay.opaque")


class RootfsView:
    """A read-only view of stacked overlay layers (or of one mounted root).

    Names are walked one component at a time through directory descriptors that never follow a symlink by
    themselves; links are followed inside the root only, as chroot(2) would. Whiteouts and opaque directories
    hide what is below them.

    :param layers: directories, topmost first; one already mounted root is a list of one.
    """

    __slots__ = ("_layers",)

    def __init__(self, layers: Sequence[Path]) -> None:
        self._layers = tuple(layers)

    def read(self, path: str, *, limit: int = MAX_USER_FILE) -> bytes | None:
        """The content of a regular file, or None where there is none.

        :raises FailedPrecondition: when it is no regular file, longer than `limit`, or a loop of symlinks.
        """
        with ExitStack() as stack:
            found = self._walk(path, stack)
            if found is None:
                return None
            fd, mode = found
            if not stat.S_ISREG(mode):
                raise FailedPrecondition(f"{path} of the image is not a regular file")
            with open(f"/proc/self/fd/{fd}", "rb") as file:
                content = file.read(limit + 1)
        if len(content) > limit:
            raise FailedPrecondition(f"{path} of the image is longer than {limit} bytes")
        return content

    def _walk(self, path: str, stack: ExitStack) -> tuple[int, int] | None:
        names = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        roots = [fd for layer in self._layers if (fd := _open_dir(layer, stack)) is not None]
        parents: list[list[int]] = []
        here = roots
        links = 0
        while names:
            name = names.pop()
            if name == "..":
                here = parents.pop() if parents else roots
                continue
            entry = _lookup(here, name, stack)
            if entry is None:
                return None
            fds, mode = entry
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise FailedPrecondition(f"{path} of the image is a loop of symbolic links")
                target = os.readlink("", dir_fd=fds[0])
                if target.startswith("/"):
                    here, parents = roots, []
                names.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
            elif stat.S_ISDIR(mode):
                parents.append(here)
                here = fds
            elif names:
                return None
            else:
                return fds[0], mode
        raise FailedPrecondition(f"{path} of the image is a directory")


def _lookup(layers: list[int], name: str, stack: ExitStack) -> tuple[list[int], int] | None:
    """The entry `name` of a merged directory: one descriptor, or those of all merged directories."""
    merged: list[int] = []
    kind = 0
    for parent in layers:
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            continue
        stack.callback(os.close, fd)
        info = os.fstat(fd)
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            break
        if not stat.S_ISDIR(info.st_mode):
            if not merged:
                return [fd], info.st_mode
            break
        kind = info.st_mode
        merged.append(fd)
        if _is_opaque(fd):
            break
    return (merged, kind) if merged else None


def _is_opaque(fd: int) -> bool:
    for attribute in _OPAQUE:
        try:
            if os.getxattr(f"/proc/self/fd/{fd}", attribute) == b"y":
                return True
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


def _open_dir(path: Path, stack: ExitStack) -> int | None:
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    stack.callback(os.close, fd)
    return fd


@contextmanager
def open_in_root(root: Path, path: str) -> Iterator[int]:
    """A descriptor (O_PATH) of `path` below `root`, resolved as if `root` were "/".

    :raises OSError: as openat2(2) with RESOLVE_IN_ROOT.
    """
    import ctypes

    from triptych_linux import syscalls

    class OpenHow(ctypes.Structure):
        _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))

    how = OpenHow(os.O_PATH | os.O_CLOEXEC, 0, 0x10)  # RESOLVE_IN_ROOT
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = syscalls.syscall(
            syscalls.SYS_OPENAT2,
            ctypes.c_int(base),
            ctypes.c_char_p(os.fsencode(path.lstrip("/") or ".")),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
            path=path,
        )
    finally:
        os.close(base)
    try:
        yield fd
    finally:
        os.close(fd)
