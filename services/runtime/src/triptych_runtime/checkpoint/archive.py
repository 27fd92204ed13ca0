"""The archive of CheckpointContainer: one tar, visible only when whole. Blocking; called from a thread."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from triptych_runtime.checkpoint.errors import CheckpointFailed


def write_archive(source: Path, location: Path) -> None:
    """Pack the directory `source` into the tar file `location`, mode 0600: it holds the process's memory.

    :raises CheckpointFailed: when it cannot be written; nothing is left then.
    """
    partial = location.with_name(location.name + ".partial")
    try:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w+b") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for path in sorted(source.iterdir()):
                    archive.add(path, path.name)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(location)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CheckpointFailed(f"write checkpoint {location}: {error}") from error
