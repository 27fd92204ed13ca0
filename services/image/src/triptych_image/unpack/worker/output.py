"""Writing to files and pipes."""

from __future__ import annotations

import os


def write_all(fd: int, data: bytes | memoryview) -> None:
    """All of it: a pipe, or a disk that fills up, takes a part without an error. Blocking.

    :raises OSError: when it takes nothing more.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
