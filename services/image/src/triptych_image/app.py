"""Everything that RPCs work with."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from triptych_oci import InvalidDigest, InvalidReference, Reference

from triptych_image.errors import AmbiguousImage, ImageNotFound
from triptych_image.pull.puller import Puller
from triptych_image.registry import RegistryClient
from triptych_image.rootfs.manager import RootfsManager
from triptych_image.rootfs.usage import UsageMeter
from triptych_image.settings import Settings
from triptych_image.store import ImageRecord, Store
from triptych_image.unpack.pool import UnpackWorkers

_SHORT_ID_MIN = 3
_HEX = frozenset("0123456789abcdef")


@dataclass(slots=True)
class App:
    """The parts of the daemon. `settings` is replaced by a reload.

    :ivar image_mountpoint: how ImageFsInfo calls the file system of images.
    :ivar rootfs_mountpoint: how it calls that of writable layers; the same where it is the same.
    """

    settings: Settings
    store: Store
    workers: UnpackWorkers
    registry: RegistryClient
    puller: Puller
    rootfs: RootfsManager
    meter: UsageMeter
    image_mountpoint: str
    rootfs_mountpoint: str

    def find(self, text: str) -> ImageRecord | None:
        """An image by ID, by reference in any form, or by an unambiguous short ID.

        None for text that is no reference at all, as both peers answer it.

        :raises AmbiguousImage: when several IDs begin so.
        """
        found = self.store.find(text) or self.store.find(f"sha256:{text}")
        if found is not None:
            return found
        short = text.removeprefix("sha256:")
        try:
            found = self.store.find(Reference.parse(text).canonical)
        except (InvalidReference, InvalidDigest):
            pass
        if found is not None or not (_SHORT_ID_MIN <= len(short) < 64 and _HEX.issuperset(short)):
            return found
        matches = [image for key, image in self.store.snapshot.images.items() if key[7:].startswith(short)]
        if len(matches) > 1:
            raise AmbiguousImage(f"image: {len(matches)} images have an ID that begins with {short}")
        return matches[0] if matches else None

    def need(self, text: str) -> ImageRecord:
        """The same, but it must be there.

        :raises ImageNotFound: naming it.
        """
        found = self.find(text)
        if found is None:
            raise ImageNotFound(f"image {text!r} not found")
        return found

    def pinned(self, image_id: str) -> bool:
        """Whether the settings pin it, by any of its names or its ID."""
        snapshot = self.store.snapshot
        names = [image_id, *snapshot.tags.get(image_id, ()), *snapshot.digests.get(image_id, ())]
        for pattern in self.settings.pinned:
            candidates = {pattern}
            try:
                candidates.add(Reference.parse(pattern).canonical)
            except (InvalidReference, InvalidDigest):
                pass
            if any(fnmatch.fnmatchcase(name, glob) for glob in candidates for name in names):
                return True
        return False
