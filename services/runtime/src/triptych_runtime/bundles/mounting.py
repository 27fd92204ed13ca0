"""Carrying out the image daemon's mount instructions. Blocking; called from a thread."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from triptych.rootfs.v1 import rootfs_pb2
from triptych_linux import mounts
from triptych_linux.mounts import Flag
from triptych_linux.overlay import mount_overlay

from triptych_runtime.errors import FailedPrecondition, RuntimeFailed
from triptych_runtime.spec.rootfs import open_in_root


def mount_rootfs(overlay: rootfs_pb2.Overlay, target: Path, userns: Path | None) -> None:
    """Mount an overlay on `target`, which is made.

    :param userns: the pinned user namespace whose mapping the layers get where the image daemon says so.
    :raises FailedPrecondition: when the file system of the layers has no idmapped mounts.
    :raises RuntimeFailed: when the kernel refuses otherwise.
    """
    target.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        with _lower(overlay, target, userns) as lower:
            options = list(overlay.options)
            mount_overlay(target, lower, upper=overlay.upper, work=overlay.work, options=options)
    except OSError as error:
        raise RuntimeFailed(f"mount root filesystem on {target}: {error}") from error


@contextlib.contextmanager
def _lower(overlay: rootfs_pb2.Overlay, target: Path, userns: Path | None) -> Iterator[list[str]]:
    """The lower directories, idmapped where that was asked for.

    The overlay keeps clones of the mounts that it was given, so the temporary ones go away again.
    """
    if not overlay.idmap_lower or userns is None:
        yield list(overlay.lower)
        return
    scratch = target.with_name(target.name + ".lower")
    made: list[str] = []
    try:
        for index, directory in enumerate(overlay.lower):
            point = scratch / str(index)
            point.mkdir(parents=True, exist_ok=True)
            try:
                mounts.bind_idmapped(directory, point, userns)
            except OSError as error:
                raise FailedPrecondition(
                    f"idmapped mount of layer {directory}: {error}",
                    hint="the file system of the image store must support idmapped mounts",
                ) from error
            made.append(str(point))
        yield made
    finally:
        for point_name in made:
            mounts.umount(point_name)
        for index in range(len(overlay.lower)):
            with contextlib.suppress(OSError):
                (scratch / str(index)).rmdir()
        with contextlib.suppress(OSError):
            scratch.rmdir()


def mount_image_volume(
    volume: rootfs_pb2.PrepareImageVolumeResponse, target: Path, userns: Path | None
) -> Path:
    """Mount an image volume read-only on `target`, and return the host path of its sub path.

    The sub path is resolved inside the volume: a symlink cannot lead out of it.

    :raises FailedPrecondition: with the CRI's reason ImageVolumeMountFailed.
    """
    root = target / "root"
    try:
        mount_rootfs(volume.overlay, root, userns)
        if not volume.sub_path:
            return root
        view = target / "view"
        with open_in_root(root, volume.sub_path) as fd:
            source = f"/proc/self/fd/{fd}"
            if os.path.isdir(source):
                view.mkdir(exist_ok=True)
            else:
                view.touch()
            mounts.mount(source, view, None, Flag.BIND)
            mounts.mount(source, view, None, Flag.BIND | Flag.REMOUNT | Flag.RDONLY)
        return view
    except OSError as error:
        raise FailedPrecondition(f"ImageVolumeMountFailed: sub path {volume.sub_path!r}: {error}") from error
