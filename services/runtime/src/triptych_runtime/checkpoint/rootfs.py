"""What a container changed in its root file system: the upper directory of its overlay, as a tar.

Blocking; called from a thread. Whiteouts become a list of deleted paths beside the tar, the form that other
tools for container checkpoints use ("rootfs-diff.tar", "deleted.files").
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from triptych_linux import mounts

from triptych_runtime.checkpoint.errors import CheckpointFailed, CheckpointUnreadable

DIFF = "rootfs-diff.tar"
DELETED = "deleted.files"
_OPAQUE = "trusted.overlay.opaque"


def upper_directory(rootfs: Path) -> Path:
    """The writable layer of a mounted overlay.

    :raises CheckpointFailed: when there is none.
    """
    entry = mounts.mount_of(rootfs)
    options = dict(option.partition("=")[::2] for option in entry.super_options.split(","))
    if entry.fstype != "overlay" or "upperdir" not in options:
        raise CheckpointFailed(f"{rootfs} has no writable layer")
    return Path(options["upperdir"])


def save_diff(rootfs: Path, target: Path) -> None:
    """Write what changed below `rootfs` into the directory `target`."""
    upper = upper_directory(rootfs)
    deleted: list[str] = []
    with tarfile.open(target / DIFF, "w", format=tarfile.PAX_FORMAT) as archive:
        for directory, names, files in os.walk(upper):
            for name in sorted(names + files):
                path = Path(directory, name)
                relative = str(path.relative_to(upper))
                status = path.lstat()
                if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    deleted.append(relative)
                elif not stat.S_ISSOCK(status.st_mode):
                    if stat.S_ISDIR(status.st_mode) and _opaque(path):
                        deleted.append(relative)
                    archive.add(path, relative, recursive=False)
    (target / DELETED).write_text(json.dumps(deleted))


def _opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def apply_diff(source: Path, rootfs: Path) -> None:
    """Make the changes of a checkpoint in a freshly mounted root file system.

    :raises CheckpointUnreadable: when the files are not what `save_diff` writes, or lead out of the root.
    """
    try:
        deleted = json.loads((source / DELETED).read_text())
        for name in deleted:
            _remove(rootfs, str(name))
        with tarfile.open(source / DIFF) as archive:
            # Not tarfile's filters: Debian 12's Python 3.11.2 has none. The attribute keeps later ones from
            # changing owners and modes.
            archive.extraction_filter = lambda member, _: member
            archive.extractall(rootfs, _checked(archive, rootfs), numeric_owner=True)
    except (OSError, ValueError, tarfile.TarError) as error:
        raise CheckpointUnreadable(f"root file system of the checkpoint {source}: {error}") from error


def _checked(archive: tarfile.TarFile, rootfs: Path) -> Iterator[tarfile.TarInfo]:
    """The members one by one, each looked at when all before it are in place: none leads out of the root."""
    for member in archive:
        _inside(rootfs, member.name)
        if member.islnk():
            _inside(rootfs, member.linkname)
        yield member


def _inside(rootfs: Path, name: str) -> Path:
    """Where a name of the checkpoint lies below the root.

    :raises ValueError: it leads out of the root, or through a symlink, which no path of an overlay does.
    """
    parts = Path(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        raise ValueError(f"path {name!r} leads out of the root")
    path = rootfs
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink():
            raise ValueError(f"path {name!r} passes a symlink")
    return path / parts[-1]


def _remove(rootfs: Path, name: str) -> None:
    path = _inside(rootfs, name)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
