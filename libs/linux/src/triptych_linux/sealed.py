"""Programs run from a sealed memory file.

crun protects itself from its containers (CVE-2019-5736) by making a read-only copy of its own binary, with a
mount and an unmount, and executing that, on every start; unless it runs from a memory file that is sealed
against every change, which is as safe. To hold such a file and start crun from it saves a third of the time
of `crun exec`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass

_KNOWN = ("crun",)
"""Programs that copy themselves and skip it when sealed; others are started as they are."""
_LARGEST = 4 << 20
_SELINUX = "/sys/fs/selinux/enforce"
"""Where SELinux rules, a program's file decides the domain that it runs in: it must be its own."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(slots=True)
class _Copy:
    """A memory file with the program as it was, and what identified that."""

    identity: tuple[int, int, int, int]
    descriptor: int
    previous: int = -1
    """The one before an upgrade: who was just told its path may not have started it yet."""


_copies: dict[str, _Copy] = {}


def program(name: str) -> str:
    """The path by which to start a program: a sealed copy where that helps, else `name` itself.

    The copy follows the file: after an upgrade the next call gives the new one. The path holds for processes
    started by this one. Costs one stat(2), and a copy of the file the first time.
    """
    path = name if os.path.isabs(name) else shutil.which(name)
    if path is None or os.path.basename(path) not in _KNOWN or os.path.exists(_SELINUX):
        return name
    try:
        found = os.stat(path)
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        copy = _copies.get(path)
        if copy is None or copy.identity != identity:
            old = copy
            copy = _Copy(identity, _try_seal(path, found.st_size), old.descriptor if old else -1)
            _copies[path] = copy
            if old is not None and old.previous >= 0:
                os.close(old.previous)
    except OSError:
        return name
    return f"/proc/{os.getpid()}/fd/{copy.descriptor}" if copy.descriptor >= 0 else name


def _try_seal(path: str, size: int) -> int:
    try:
        return _seal(path, size)
    except OSError:  # no room, or memory files cannot be executed here: said once, not at every start
        return -1


def _seal(path: str, size: int) -> int:
    """A sealed memory file with the content of `path`; -1 for what should not be copied."""
    if size > _LARGEST:
        return -1
    with open(path, "rb") as file:
        content = file.read()
    if not content.startswith(b"\x7fELF"):
        return -1
    descriptor = os.memfd_create(os.path.basename(path), os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        if not os.access(f"/proc/self/fd/{descriptor}", os.X_OK):
            raise PermissionError(f"memory files cannot be executed here: {path}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
