"""Room that is kept for removals, so that a full disk can be emptied again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_BYTES: Final = 1 << 20


class Ballast:
    """A file whose blocks are given up when a removal finds no room for its own record.

    Others fill the disk as well (logs of containers, volumes), and the kubelet frees it by removing images.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self) -> None:
        """Take the room, if there is enough and it is not taken yet."""
        with contextlib.suppress(FileExistsError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, _BYTES)
            except OSError:
                self._path.unlink()
            finally:
                os.close(fd)

    def drop(self) -> bool:
        """Give the room up; returns whether there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
