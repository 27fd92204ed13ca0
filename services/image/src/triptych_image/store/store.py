"""The store: what is on disk, and who refers to it.

Readers take `snapshot`, which is immutable and current. Writers are coroutines; their work on rows and names
runs in the database's thread, one after the other, so that a check and what follows from it belong together.

Order of every write: data into `tmp`, rename, sync, row. Of every removal: row (durable), rename into the
trash, free. So a row never outlives its data, and data without a row is a leftover that a start removes.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from triptych_oci import Digest

from triptych_image.errors import ImageNotFound
from triptych_image.faults import point
from triptych_image.store import _changes, _rows
from triptych_image.store._commits import Commit, Committer
from triptych_image.store._content import Content
from triptych_image.store._database import transaction
from triptych_image.store._writable import Writable
from triptych_image.store.holds import Hold
from triptych_image.store.paths import Paths
from triptych_image.store.records import ImageRecord, NameRecord, Snapshot


class Store(Content, Writable):
    """One store; make it with `open`."""

    def find(self, text: str) -> ImageRecord | None:
        """An image by ID, short ID, or a reference in its full form; None when there is none."""
        snapshot = self.snapshot
        name = snapshot.names.get(text)
        if name is not None:
            return snapshot.images.get(name.image_id)
        return snapshot.images.get(text)

    def __init__(self, paths: Paths, *, sync: bool = True, keep_seconds: float = 1800.0) -> None:
        super().__init__(paths, sync=sync, keep_seconds=keep_seconds)
        self._committer = Committer(lambda: self.sync(), self._insert_images)

    async def close(self) -> None:
        """Finish commits, and close the database."""
        await self._committer.close()
        await super().close()

    @contextlib.contextmanager
    def importing(self) -> Iterator[Hold]:
        """A hold for what an image is made of that is going to be committed."""
        with self._committer.coming(), self.hold() as hold:
            yield hold

    async def commit_image(self, image: ImageRecord, names: Sequence[NameRecord]) -> None:
        """Make an image visible. Its layers and blobs are there already; they are synced first.

        One of the same ID that is there keeps its age, its names, and the blobs that it came by.

        :raises DiskFull: when the disk does not take them.
        """
        await self._committer.commit(image, names)

    async def _insert_images(self, commits: Sequence[Commit]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            point("commit-before-row")
            after = self.snapshot
            with transaction(connection, durable=True):
                for commit in commits:
                    image, sizes = self._with_what_was(after, commit.image)
                    _rows.insert_image(connection, image)
                    keys = [(key,) for key in image.layers]
                    connection.executemany("UPDATE layers SET boot='' WHERE key=? AND boot!=''", keys)
                    for name in commit.names:
                        _rows.insert_name(connection, name)
                    after = _changes.with_image(after, image, commit.names, sizes)
                point("commit-in-transaction")
            self.snapshot = after
            point("commit-after-row")

        await self._database.run(work)

    def _with_what_was(
        self, snapshot: Snapshot, image: ImageRecord
    ) -> tuple[ImageRecord, dict[Digest, int]]:
        """In the database's thread: until then a removal may take an older one and its blobs away.

        :returns: the image, and the bytes on disk of its blobs.
        """
        old = snapshot.images.get(image.id, image)
        blobs = tuple(sorted({*image.blobs, *old.blobs}))
        sizes = {digest: self.blob_size(digest) for digest in blobs}
        size = sum(sizes.values())
        return replace(image, blobs=blobs, blob_bytes=size, created_at=old.created_at), sizes

    async def add_names(self, names: Sequence[NameRecord]) -> None:
        """Give an image more names.

        :raises ImageNotFound: when it was removed meanwhile.
        """

        def work(connection: sqlite3.Connection) -> None:
            for name in names:
                if name.image_id not in self.snapshot.images:
                    raise ImageNotFound(f"image {name.image_id} is gone")
            with transaction(connection):
                for name in names:
                    _rows.insert_name(connection, name)
            image = self.snapshot.images[names[0].image_id]
            self.snapshot = _changes.with_image(self.snapshot, image, names, {})

        await self._database.run(work)

    async def remove_images(self, ids: Iterable[str]) -> None:
        """Remove images with all their names, and every layer and blob that nobody else has."""
        gone = set(ids)

        def work(connection: sqlite3.Connection) -> None:
            images = [self.snapshot.images[key] for key in gone if key in self.snapshot.images]
            blobs = {digest for image in images for digest in image.blobs}
            point("remove-before-row")
            with transaction(connection, durable=True):
                connection.executemany("DELETE FROM images WHERE id=?", [(key,) for key in gone])
                layers = self._collect(connection, {key for image in images for key in image.layers})
            point("remove-after-row")
            self.snapshot = _changes.without_images(self.snapshot, gone, layers)
            self._discard(layers, blobs)

        await self._database.run(work, frees=True)
