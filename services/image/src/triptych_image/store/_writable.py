"""Root filesystems: writable layers of containers, and image volumes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from triptych_image.errors import ImageNotFound
from triptych_image.faults import point
from triptych_image.store import _changes, _rows
from triptych_image.store._core import Core
from triptych_image.store._database import transaction
from triptych_image.store._trash import discard
from triptych_image.store.records import RootfsRecord


class Writable(Core):
    """Who uses images."""

    async def add_rootfs(self, rootfs: RootfsRecord, make: Callable[[], None] | None = None) -> RootfsRecord:
        """Record a root filesystem; returns what the key stands for, which may have been there already.

        :param make: makes its directory, in the database's thread; undone when the row cannot be written.
        :raises ImageNotFound: when the image's layers were removed meanwhile.
        """

        def work(connection: sqlite3.Connection) -> RootfsRecord:
            there = self.snapshot.rootfs.get(rootfs.key)
            if there is not None:
                return there
            if any(key not in self.snapshot.layers for key in rootfs.layers):
                raise ImageNotFound(f"image {rootfs.image_id} was removed meanwhile")
            try:
                if make is not None:
                    make()
                point("rootfs-before-row")
                with transaction(connection):
                    _rows.insert_rootfs(connection, rootfs)
            except BaseException:
                discard(self.paths, self.paths.writable(rootfs.key))
                raise
            self.snapshot = _changes.with_rootfs(self.snapshot, rootfs)
            point("rootfs-after-row")
            return rootfs

        return await self._database.run(work)

    async def remove_rootfs(self, keys: Iterable[str], *, below: bool = False) -> list[RootfsRecord]:
        """Forget root filesystems and discard their writable layers, and layers that only they had.

        What is being added comes first, whatever became of its caller.

        :param below: those below the keys too.
        :returns: what there was.
        """
        wanted = set(keys)

        def work(connection: sqlite3.Connection) -> list[RootfsRecord]:
            known = self.snapshot.rootfs
            gone = wanted & known.keys()
            if below:
                gone |= {name for name in known if any(name.startswith(f"{key}/") for key in wanted)}
            records = [known[key] for key in gone]
            if not records:
                return []
            orphaned = any(record.image_id not in self.snapshot.images for record in records)
            point("rootfs-remove-before-row")
            layers: set[str] = set()
            with transaction(connection, durable=orphaned):
                connection.executemany("DELETE FROM rootfs WHERE key=?", [(key,) for key in gone])
                if orphaned:
                    layers = self._collect(connection, {key for record in records for key in record.layers})
            self.snapshot = _changes.without_rootfs(self.snapshot, gone)
            point("rootfs-remove-after-row")
            for record in records:
                discard(self.paths, self.paths.writable(record.key))
            if orphaned:
                self.snapshot = _changes.without_images(self.snapshot, set(), layers)
                self._discard(layers, {record.config for record in records})
            return records

        return await self._database.run(work, frees=True)
