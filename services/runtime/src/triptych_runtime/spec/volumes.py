"""Filling the anonymous directory of an image-config volume with what the image has there."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from triptych_runtime.spec.inputs import AnonymousVolume
from triptych_runtime.spec.rootfs import open_in_root


def populate(rootfs: Path, volume: AnonymousVolume) -> None:
    """Create `volume.source` and copy into it what the root filesystem has at `volume.destination`.

    Owner, mode, times, extended attributes, symlinks, devices and hard-linked content are kept; the
    destination is resolved inside the root. Where the image has no such directory, the volume is an empty
    one of the pod's root, mode 0755. Blocking, as long as the content is large: call it from a thread.

    :param rootfs: the mounted root filesystem (already idmapped for a pod with a user namespace, so that
        the copy has the right owners).
    """
    volume.source.mkdir(parents=True, exist_ok=True)
    os.chown(volume.source, *volume.owner)
    try:
        with open_in_root(rootfs, volume.destination) as fd:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                _copy_directory(f"/proc/self/fd/{fd}/.", str(volume.source))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise


def _copy_directory(source: str, target: str) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            _copy_entry(entry, os.path.join(target, entry.name))
    _copy_metadata(source, target)


def _copy_entry(entry: os.DirEntry[str], target: str) -> None:
    info = entry.stat(follow_symlinks=False)
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFDIR:
        os.mkdir(target)
        _copy_directory(entry.path, target)
        return
    if kind == stat.S_IFREG:
        shutil.copyfile(entry.path, target, follow_symlinks=False)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(entry.path), target)
    else:
        os.mknod(target, info.st_mode, info.st_rdev)
    _copy_metadata(entry.path, target)


def _copy_metadata(source: str, target: str) -> None:
    info = os.lstat(source)
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)
