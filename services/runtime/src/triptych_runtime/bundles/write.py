"""Files of a bundle. Blocking; called from a thread."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from triptych_linux import mounts
from triptych_linux.mounts import Flag

from triptych_runtime.errors import FailedPrecondition, RuntimeFailed
from triptych_runtime.spec import ENVIRONMENT_PROGRAM, ContainerSpec, PreparedMount, encode
from triptych_runtime.spec.mount_options import attributes
from triptych_runtime.spec.volumes import populate

#: In the bundle: the pinned PID namespace of the container that this one joins (PID mode TARGET).
TARGET_PIN = "target-pid"
_ATTEMPTS = 50
_PAUSE = 0.002
_MEANWHILE = (errno.ENOENT, errno.ENOTEMPTY)


def write_bundle(bundle: Path, rootfs: Path, spec: ContainerSpec) -> None:
    """Write what a built container needs on the host, and its config.json.

    :raises RuntimeFailed: when the bundle is gone: host paths hung until the create had been undone.
    """
    for directory in spec.directories:
        _make_host_path(directory)
    if not bundle.exists():
        raise RuntimeFailed(f"bundle {bundle}: it was taken back meanwhile")
    for file in spec.files:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.write_bytes(file.content)
        file.path.chmod(file.mode)
        if file.mode & 0o111:
            _allow_execution(file.path)
    for volume in spec.anonymous_volumes:
        populate(rootfs, volume)
    for mount in spec.prepared:
        _prepare(mount)
    write_document(bundle, encode(spec.document))


def _make_host_path(directory: Path) -> None:
    """:raises FailedPrecondition: when the host path of a mount can neither be found nor made."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailedPrecondition(
            f"mounts: host_path {directory} does not exist, and cannot be made: {error.strerror}"
        ) from error


def _allow_execution(program: Path) -> None:
    """Mount a program on itself, executable, where its file system (/run on some nodes) is noexec.

    The mount in the container is a copy of it, and one in a user namespace cannot lose a flag any more.
    """
    if os.statvfs(program).f_flag & os.ST_NOEXEC:
        mounts.mount(str(program), program, None, Flag.BIND)
        flags = Flag.BIND | Flag.REMOUNT | Flag.RDONLY | Flag.NOSUID | Flag.NODEV
        mounts.mount(str(program), program, None, flags)


def _prepare(mount: PreparedMount) -> None:
    """Make a mount for an OCI runtime that cannot make it so itself.

    :raises FailedPrecondition: when the kernel refuses, as for a file system without idmapped mounts.
    """
    mount.target.parent.mkdir(exist_ok=True)
    if mount.source.is_dir():
        mount.target.mkdir(exist_ok=True)
    else:
        mount.target.touch()
    try:
        changes = attributes(mount.options)
        mounts.bind_with(mount.source, mount.target, changes, mount.user_namespace, slave=mount.slave)
    except OSError as error:
        if mount.user_namespace is None:
            raise FailedPrecondition(
                f"mount_options: mount of {mount.source} with {', '.join(mount.options)}: {error}"
            ) from error
        raise FailedPrecondition(
            f"idmapped mount of {mount.source}: {error}",
            hint="its file system must support idmapped mounts",
        ) from error


def write_document(bundle: Path, document: bytes) -> None:
    """Write config.json, which holds an environment, and so nobody else may read."""
    fd = os.open(bundle / "config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(document)


def read_document(bundle: Path) -> dict[str, Any]:
    """What `write_document` wrote.

    :raises FileNotFoundError: when there is nothing any more.
    """
    raw = (bundle / "config.json").read_bytes()
    document: dict[str, Any] = json.loads(raw.decode(errors="surrogateescape"))
    return document


def document_if_any(bundle: Path) -> dict[str, Any] | None:
    """The same, None when there is nothing any more."""
    with contextlib.suppress(FileNotFoundError):
        return read_document(bundle)
    return None


def remove_bundle(bundle: Path, volumes: Path) -> None:
    """Unmount and remove a bundle and the container's anonymous volumes; idempotent."""
    mounts.umount_all(bundle / "rootfs")
    mounts.umount_all(bundle / TARGET_PIN)
    mounts.umount_all(bundle / ENVIRONMENT_PROGRAM)
    with contextlib.suppress(FileNotFoundError):
        for prepared in (bundle / "prepared").iterdir():
            mounts.umount_all(prepared)
    with contextlib.suppress(FileNotFoundError):
        for volume in (bundle / "image-volumes").iterdir():
            mounts.umount_all(volume / "view")
            mounts.umount_all(volume / "root")
    _remove_tree(bundle)
    if volumes.exists():
        _remove_tree(volumes)


def _remove_tree(path: Path) -> None:
    """Remove a directory tree; a mount below it is an error, never followed.

    A monitor that ends just then writes its last file and takes its socket with it: that is no error.
    """
    for attempt in range(_ATTEMPTS):
        try:
            device = path.lstat().st_dev
            for directory, _, _ in os.walk(path):
                if os.lstat(directory).st_dev != device:
                    raise OSError(f"{directory} is still mounted")
            shutil.rmtree(path)
        except OSError as error:
            if error.errno not in _MEANWHILE or attempt == _ATTEMPTS - 1:
                raise
            if not path.exists():
                return
            time.sleep(_PAUSE)
        else:
            return
