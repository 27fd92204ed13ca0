"""Root filesystems by key."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych_image.errors import (
    ImageMalformed,
    InvalidRequest,
    RootfsConflict,
    VolumePathNotFound,
)
from triptych_image.layers import merged
from triptych_image.rootfs import quota
from triptych_image.rootfs.usage import Usage, UsageMeter
from triptych_image.store import ImageKind, ImageRecord, RootfsKind, RootfsRecord, Store, disk_error

_KEY_MAX = 512
_CONFIGS_CACHED = 64
_CONFIG_CACHED_MAX = 64 << 10
"""Bytes; most configs have a few thousand, the largest that are taken 4 million."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """[container, container+length) inside is [host, host+length) outside."""

    host: int
    container: int
    length: int


@dataclass(frozen=True, slots=True)
class Mounting:
    """What to mount.

    :param lower: topmost first.
    :param options: of the overlay.
    """

    lower: tuple[str, ...]
    upper: str
    work: str
    options: tuple[str, ...]
    idmap_lower: bool


class RootfsManager:
    """Prepares, lists, measures and removes root filesystems and image volumes."""

    def __init__(self, store: Store, meter: UsageMeter) -> None:
        self._store = store
        self._meter = meter
        self._configs: dict[str, bytes] = {}
        self._projects = quota.Projects(time.time_ns())

    async def prepare(
        self,
        key: str,
        image: ImageRecord,
        image_ref: str,
        uids: Sequence[Mapping],
        gids: Sequence[Mapping],
        size_limit: int,
        label: str,
    ) -> tuple[Mounting, RootfsRecord, bytes]:
        """Make a writable root filesystem, or find the one that the key has.

        :returns: how to mount it, its record, and the image's config.
        :raises RootfsConflict: when the key is another image's.
        :raises QuotaUnsupported: when a size limit is asked for and cannot be kept.
        """
        check_key(key)
        if image.kind is not ImageKind.IMAGE:
            raise ImageMalformed(f"image {image.id} is an OCI artifact; no container can run from it")
        record = RootfsRecord(
            key=key,
            kind=RootfsKind.CONTAINER,
            image_id=image.id,
            config=image.config,
            layers=image.layers,
            image_ref=image_ref,
            sub_path="",
            idmapped=bool(uids or gids),
            size_limit=size_limit,
            project=self._free_project() if size_limit else 0,
            created_at=time.time_ns(),
        )
        owner = (map_id(image.root_uid, uids, "uid"), map_id(image.root_gid, gids, "gid"))
        directory = self._store.paths.writable(key)
        config = self._configs.get(image.config)

        def make() -> None:
            _make_writable(directory, image.root_mode, owner, record.project, size_limit)

        found = self._store.snapshot.rootfs.get(key)
        if found is None:
            found = await self._store.add_rootfs(record, make)
        if found.image_id != image.id or found.kind is not RootfsKind.CONTAINER:
            raise RootfsConflict(f"root filesystem {key} exists for image {found.image_id}, not {image.id}")
        if config is None:
            config = await self._config(image)
        return self._mounting(found, label), found, config

    async def prepare_volume(
        self, key: str, image: ImageRecord, sub_path: str, *, idmapped: bool, label: str
    ) -> tuple[Mounting, RootfsRecord]:
        """Make a read-only view of an image.

        :raises VolumePathNotFound: when the image has no such path.
        :raises RootfsConflict: when the key is another image's.
        """
        check_key(key)
        cleaned = _check_sub_path(sub_path)
        layers = [self._store.paths.layer(name) for name in reversed(image.layers)]
        try:
            await asyncio.to_thread(merged.lookup, layers, cleaned)
        except OSError as error:
            raise VolumePathNotFound(
                f"image {image.id} has no path {sub_path!r}: {error.strerror}"
            ) from None
        record = RootfsRecord(
            key=key,
            kind=RootfsKind.VOLUME,
            image_id=image.id,
            config=image.config,
            layers=image.layers,
            image_ref="",
            sub_path=cleaned,
            idmapped=idmapped,
            size_limit=0,
            project=0,
            created_at=time.time_ns(),
        )
        found = await self._store.add_rootfs(record)
        if (found.image_id, found.kind, found.sub_path) != (image.id, RootfsKind.VOLUME, cleaned):
            raise RootfsConflict(f"root filesystem {key} exists for image {found.image_id}")
        return self._mounting(found, label), found

    async def remove(self, key: str, *, prefix: bool) -> None:
        """Drop a key, and with `prefix` all below it; unknown is fine."""
        check_key(key)
        removed = await self._store.remove_rootfs([key], below=prefix)
        self._meter.forget([record.key for record in removed])
        for record in removed:
            if record.project:
                await asyncio.to_thread(quota.release, self._store.paths.rootfs, record.project)

    async def usage(self, keys: Iterable[str]) -> dict[str, Usage]:
        """Usage of writable layers; keys that are unknown or volumes are left out."""
        return await self._meter.measure(self.writable(keys))

    def writable(self, keys: Iterable[str] = ()) -> list[tuple[str, Path, int]]:
        """Key, directory and project of writable layers; of all when no keys are given."""
        known = self._store.snapshot.rootfs
        wanted = list(keys) or list(known)
        return [
            (key, self._store.paths.writable(key) / "upper", known[key].project)
            for key in wanted
            if key in known and known[key].kind is RootfsKind.CONTAINER
        ]

    async def _config(self, image: ImageRecord) -> bytes:
        config = await asyncio.to_thread(self._store.read_blob, image.config)
        if len(config) > _CONFIG_CACHED_MAX:
            return config
        if len(self._configs) >= _CONFIGS_CACHED:
            self._configs.pop(next(iter(self._configs)))
        self._configs[image.config] = config
        return config

    def _mounting(self, record: RootfsRecord, label: str) -> Mounting:
        paths = self._store.paths
        lower = tuple(str(paths.layer(key)) for key in reversed(record.layers))
        options = [f'context="{label}"'] if label else []
        if record.kind is RootfsKind.VOLUME:
            return Mounting(lower, "", "", tuple(options), record.idmapped)
        directory = paths.writable(record.key)
        # volatile: nothing of a container's root filesystem survives a crash of the node, so its unmount
        # need not write out the whole file system. index=off: lower layers are shared between mounts.
        options += ["volatile", "index=off"]
        return Mounting(
            lower, str(directory / "upper"), str(directory / "work"), tuple(options), record.idmapped
        )

    def _free_project(self) -> int:
        return self._projects.take({record.project for record in self._store.snapshot.rootfs.values()})


def _make_writable(
    directory: Path, mode: int, owner: tuple[int, int], project: int, size_limit: int
) -> None:
    upper, work = directory / "upper", directory / "work"
    try:
        os.mkdir(directory, 0o700)
        if project:
            quota.limit(directory, project, size_limit)
        os.mkdir(upper, 0o755)
        os.mkdir(work, 0o700)
        if owner != (0, 0):
            os.chown(upper, *owner)
        os.chmod(upper, mode)
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise RootfsConflict(f"{directory} is in the way") from error
        raise disk_error(error, f"make {directory}") from error


def check_key(key: str) -> None:
    """:raises InvalidRequest: unless it can name a root filesystem."""
    if not key or len(key) > _KEY_MAX or "\0" in key or any(p in ("", ".", "..") for p in key.split("/")):
        raise InvalidRequest(f"key: {key[:100]!r} names no root filesystem")


def _check_sub_path(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise VolumePathNotFound(f"sub path {path[:200]!r} leads out of the image")
    return "/".join(parts)


def map_id(number: int, mappings: Sequence[Mapping], what: str) -> int:
    """The host's number for a number inside; without mappings the same.

    :raises InvalidRequest: when no mapping has it.
    """
    if not mappings:
        return number
    for item in mappings:
        if item.container <= number < item.container + item.length:
            return item.host + number - item.container
    raise InvalidRequest(
        f"{what}_mappings: none of them has {number}, the owner of the image's root directory"
    )
