"""Mounts: removed, replaced and added, and the root's propagation that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from nri.v1alpha1 import nri_pb2
from triptych_linux.mounts import MountEntry

from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.nri.adjusting import Adjusting
from triptych_runtime.nri.owners import unmark
from triptych_runtime.spec.default_mounts import entry
from triptych_runtime.spec.inputs import Relabel
from triptych_runtime.spec.mounts import bind_options, clean, place, propagate

# An option of NRI and not of mounts: give the source the container's SELinux label.
_RELABEL: Final = "relabel"
_PROPAGATION: Final = ("rprivate", "rshared", "rslave")


def adjust(
    made: Adjusting, wanted: Iterable[nri_pb2.Mount], find_mount: Callable[[str], MountEntry]
) -> None:
    """Change the document's mounts.

    :raises AdjustmentRefused: for a destination that is none.
    :raises FailedPrecondition: when a host path does not propagate as the mount wants.
    """
    for mount in wanted:
        path, gone = unmark(mount.destination)
        if not path.startswith("/") or clean(path) == "/" or "\0" in path + mount.source:
            raise AdjustmentRefused(f"mounts: {path!r} is no place for a mount")
        if gone:
            mounts = made.document["mounts"]
            made.document["mounts"] = [m for m in mounts if m["destination"] != clean(path)]
        else:
            _add(made, mount, clean(path), find_mount)


def _add(
    made: Adjusting, mount: nri_pb2.Mount, destination: str, find_mount: Callable[[str], MountEntry]
) -> None:
    kind = mount.type or "bind"
    wanted = (option for option in mount.options if option != _RELABEL)
    options = bind_options(kind, wanted, mount.source, made.document)
    propagation = [option for option in options if option in _PROPAGATION]
    if propagation and not {"bind", "rbind"}.isdisjoint(options):
        rootfs = propagate(
            propagation[-1],
            made.linux.get("rootfsPropagation", ""),
            f"mounts: {destination}",
            mount.source,
            find_mount,
        )
        if rootfs:
            made.linux["rootfsPropagation"] = rootfs
    label = made.linux.get("mountLabel")
    if _RELABEL in mount.options and label:
        made.relabels.append(Relabel(Path(mount.source), label))
    added = entry(destination, kind, mount.source, options)
    made.document["mounts"] = place(made.document["mounts"], added)
