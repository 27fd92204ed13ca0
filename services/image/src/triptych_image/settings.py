"""The settings of the image daemon: `/etc/triptych/image.toml`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from triptych_service.settings import Reload, ServiceSettings, Table, setting

from triptych_image.policy.settings import PolicySettings
from triptych_image.registry.settings import RegistrySettings

Count = Annotated[int, msgspec.Meta(ge=1)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class PullSettings(Table):
    """`[pull]`"""

    max_concurrent_layers: Annotated[int, msgspec.Meta(ge=1, le=64)] = setting(
        4, "Layers that are fetched and unpacked at the same time, all pulls together.", reload=Reload.LIVE
    )
    platform: str = setting(
        "",
        "Platform that is taken from an index, `os/architecture[/variant]`; empty for this machine's own.",
    )
    keep_compressed: bool = setting(
        False,
        "Keep layers as they came besides unpacked. They can be fetched again, and `save` and `push` make "
        "archives from what is unpacked, so this is for registries that must get the very same blobs.",
        reload=Reload.LIVE,
    )
    resume_bytes: Bytes = setting(
        64 << 20,
        "Layers from this size on are also written to a file while they arrive, from which the next attempt "
        "goes on when the daemon is killed; 0 turns it off. Finished layers are never fetched again.",
        reload=Reload.LIVE,
    )
    resume_seconds: Seconds = setting(
        1800.0,
        "How long finished layers and files to go on from are kept for an image whose pull did not end.",
    )
    progress_timeout_seconds: Seconds = setting(
        300.0,
        "A layer of which nothing is received nor unpacked for this long ends the pull.",
        reload=Reload.LIVE,
    )


class UnpackSettings(Table):
    """`[unpack]`: limits against archives that want to fill the disk."""

    max_layer_bytes: Bytes = setting(
        256 << 30,
        "Largest layer, unpacked, holes of sparse files included; 0 for no limit.",
        reload=Reload.LIVE,
    )
    max_layer_entries: Bytes = setting(
        1_000_000, "Entries that one layer may have; 0 for no limit.", reload=Reload.LIVE
    )
    max_ratio: Bytes = setting(
        250,
        "How many times its packed size a layer may unpack to once that exceeds 1 GiB; 0 for no limit.",
        reload=Reload.LIVE,
    )
    reserve_bytes: Bytes = setting(
        256 << 20,
        "Free space that pulls, `image load` and `image push` leave on the store's file system; one that "
        "would take it ends.",
        reload=Reload.LIVE,
    )
    sync: bool = setting(
        True,
        "Write an image's data to the disk before it is listed. Without, a power loss may leave files of an "
        "image empty; a killed daemon never does.",
    )
    idle_seconds: Seconds = setting(10.0, "How long the unpack process stays when there is nothing to do.")


class Settings(ServiceSettings):
    """`/etc/triptych/image.toml`"""

    root: str = setting("/var/lib/triptych/image", "Directory of images; one file system, and not a tmpfs.")
    rootfs_root: str = setting(
        "",
        "Directory of writable layers, to have them on another disk; empty for `rootfs` below `root`.",
    )
    pinned: tuple[str, ...] = setting(
        (),
        "Images reported as pinned, which the kubelet never removes, and that `prune` leaves alone: "
        "references, with `*` and `?` as in shells, such as `registry.k8s.io/pause:*`.",
        reload=Reload.LIVE,
    )
    usage_seconds: Seconds = setting(
        10.0,
        "How old a measured usage of a writable layer may be before it is measured again.",
        reload=Reload.LIVE,
    )
    pull: PullSettings = setting(PullSettings(), "How images are pulled.")
    unpack: UnpackSettings = setting(UnpackSettings(), "How layers are unpacked.")
    registry: RegistrySettings = setting(RegistrySettings(), "How registries are found and talked to.")
    policy: PolicySettings = setting(PolicySettings(), "Which images may be pulled.")
