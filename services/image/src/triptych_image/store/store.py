"""The store: what is on disk, and who refers to it.

Readers take `snapshot`, which is immutable and current. Writers are coroutines; their work on rows and names
runs in the database's thread, one after the other, so that a check and what follows from it belong together.

Order of every write: data into `tmp`, rename, sync, row. Of every removal: row (durable), rename into the
trash, free. So a row never outlives its data, and data without a row is a leftover that a start removes.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from triptych_oci import Digest

from triptych_image.errors import DiskFull, ImageNotFound, StoreUnusable
from triptych_image.faults import point
from triptych_image.store import _changes, _recovery, _rows
from triptych_image.store._database import Database, DatabaseBroken, transaction
from triptych_image.store.durability import SyncGate, boot_id
from triptych_image.store.holds import Hold
from triptych_image.store.paths import Paths
from triptych_image.store.records import ImageRecord, LayerRecord, NameRecord, RootfsRecord, Snapshot

log = logging.getLogger(__name__)


class Store:
    """One store; make it with `open`.

    :ivar snapshot: everything there is, at this moment.
    :ivar gate: syncs what was written.
    :ivar boot: the current boot's ID.
    :ivar trash: set when there may be something to free.
    """

    def __init__(self, paths: Paths, *, sync: bool = True, keep_seconds: float = 1800.0) -> None:
        self.paths = paths
        self.snapshot = Snapshot()
        self.gate = SyncGate(paths.root, enabled=sync)
        self.boot = boot_id()
        self.keep_seconds = keep_seconds
        self._database = Database(paths.database)
        self._claims: Counter[str] = Counter()
        self._blob_claims: Counter[str] = Counter()
        self._lock_fd = -1
        self._emptying = asyncio.Lock()
        self.trash = asyncio.Event()

    async def open(self) -> None:
        """Take the directories, read the rows, and put aside what a crash left.

        :raises StoreUnusable: when another daemon has it, or it cannot be read.
        """

        def start(connection: sqlite3.Connection) -> Snapshot:
            return _recovery.recover(connection, self.paths, self.boot, self.keep_seconds)

        try:
            self.paths.make()
            self._lock_fd = os.open(self.paths.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreUnusable(f"{self.paths.root}: another daemon uses this store") from None
        except OSError as error:
            raise StoreUnusable(f"{self.paths.root}: {error.strerror}") from error
        try:
            self.snapshot = await self._database.run(start)
        except (DatabaseBroken, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StoreUnusable(f"{self.paths.database}: {error}") from error
            await self._database.close()
            aside = _recovery.quarantine(self.paths)
            log.error(
                "the database is broken: starting with an empty store",
                extra={"error": str(error), "kept": str(aside)},
            )
            self.paths.make()
            self._database = Database(self.paths.database)
            self.snapshot = await self._database.run(start)

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    # -- looking up

    def find(self, text: str) -> ImageRecord | None:
        """An image by ID, short ID, or a reference in its full form; None when there is none."""
        snapshot = self.snapshot
        name = snapshot.names.get(text)
        if name is not None:
            return snapshot.images.get(name.image_id)
        return snapshot.images.get(text)

    # -- layers

    def hold(self) -> Hold:
        """Keep layers and blobs from being removed while something is made that will refer to them."""
        return Hold(self)

    async def add_layer(self, layer: LayerRecord, tree: Path, tape: Path) -> None:
        """Take over an unpacked layer and its tape from `tmp`."""

        def work(connection: sqlite3.Connection) -> None:
            point("layer-before-rename")
            os.rename(tree, self.paths.layer(layer.key))
            point("layer-between-renames")
            os.rename(tape, self.paths.tape(layer.key))
            point("layer-before-row")
            with transaction(connection):
                _rows.insert_layer(connection, layer)
            self.snapshot = _changes.with_layers(self.snapshot, [layer])
            point("layer-after-row")

        await self._database.run(work)

    async def claim_layers(self, keys: Sequence[str]) -> set[str]:
        """For `Hold`."""

        def work(_: sqlite3.Connection) -> set[str]:
            self._claims.update(keys)
            return {key for key in keys if key in self.snapshot.layers}

        return await self._database.run(work)

    def release(self, layers: Sequence[str], blobs: Sequence[Digest]) -> None:
        """For `Hold`. Blobs that found no owner go at once, layers wait for the next attempt."""

        def work() -> None:
            self._claims.subtract(layers)
            self._claims = +self._claims
            self._blob_claims.subtract(blobs)
            self._blob_claims = +self._blob_claims
            self._discard(set(), set(blobs))

        self._database.post(work)

    # -- blobs

    async def write_blobs(self, claimed: Sequence[Digest], blobs: Mapping[Digest, bytes]) -> None:
        """For `Hold`."""

        def work(_: sqlite3.Connection) -> None:
            self._blob_claims.update(claimed)
            for digest, data in blobs.items():
                path = self.paths.blob(digest)
                if path.exists():
                    continue
                scratch = self.paths.scratch()
                try:
                    scratch.write_bytes(data)
                    point("blob-before-rename")
                    os.rename(scratch, path)
                except OSError as error:
                    scratch.unlink(missing_ok=True)
                    raise disk_error(error, f"write blob {digest}") from error

        await self._database.run(work)

    async def adopt_blob(self, digest: Digest, path: Path) -> None:
        """Take over a verified file as a blob."""
        await self._database.run(lambda _: os.rename(path, self.paths.blob(digest)))

    def read_blob(self, digest: Digest) -> bytes:
        """A blob's bytes. Blocking, meant for manifests and configs.

        :raises ImageNotFound: when it is not there.
        """
        try:
            return self.paths.blob(digest).read_bytes()
        except FileNotFoundError:
            raise ImageNotFound(f"blob {digest} is not stored") from None

    def blob_size(self, digest: Digest) -> int:
        """Bytes on disk of a blob, 0 when it is not there."""
        try:
            return self.paths.blob(digest).stat().st_size + 4095 & -4096
        except FileNotFoundError:
            return 0

    # -- images

    async def commit_image(self, image: ImageRecord, names: Sequence[NameRecord]) -> None:
        """Make an image visible. Its layers and blobs are there already; they are synced first.

        :raises DiskFull: when the disk does not take them.
        """
        try:
            await self.gate.sync()
        except OSError as error:
            raise disk_error(error, f"sync image {image.id}") from error

        def work(connection: sqlite3.Connection) -> None:
            point("commit-before-row")
            with transaction(connection, durable=True):
                _rows.insert_image(connection, image)
                connection.executemany(
                    "UPDATE layers SET boot='' WHERE key=? AND boot!=''", [(key,) for key in image.layers]
                )
                for name in names:
                    _rows.insert_name(connection, name)
                point("commit-in-transaction")
            self.snapshot = _changes.with_image(self.snapshot, image, names)
            point("commit-after-row")

        try:
            await self._database.run(work)
        except sqlite3.OperationalError as error:
            raise DiskFull(f"record image {image.id}: {error}") from error

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
            self.snapshot = _changes.with_image(self.snapshot, image, names)

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

        await self._database.run(work)

    async def collect(self, *, all_unused: bool = False) -> tuple[int, int]:
        """Remove finished layers that nobody has and nobody is going to have.

        :param all_unused: also those young enough for a pull to go on with.
        :returns: their number and their bytes.
        """

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            candidates = set(self.snapshot.layers) if all_unused else set()
            if not _recovery.unreferenced(connection):
                return 0, 0
            with transaction(connection, durable=True):
                layers = self._collect(connection, candidates)
            size = sum(self.snapshot.layers[key].size for key in layers)
            self.snapshot = _changes.without_images(self.snapshot, set(), layers)
            self._discard(layers, set())
            return len(layers), size

        return await self._database.run(work)

    async def collect_partials(self, keep: Iterable[Digest]) -> int:
        """Remove files that broken downloads left to go on from, but for some; returns their bytes."""
        kept = {self.paths.partial(digest).name for digest in keep}

        def work(_: sqlite3.Connection) -> int:
            size = 0
            for entry in list(os.scandir(self.paths.partials)):
                if entry.name not in kept:
                    size += entry.stat().st_blocks * 512
                    os.unlink(entry.path)
            return size

        return await self._database.run(work)

    def _collect(self, connection: sqlite3.Connection, candidates: set[str]) -> set[str]:
        """Drop rows of layers that nobody has, if they are candidates or too old to be of use."""
        oldest = time.time_ns() - int(self.keep_seconds * 1e9)
        layers = {
            key
            for key in _recovery.unreferenced(connection)
            if key not in self._claims
            and (key in candidates or self.snapshot.layers[key].created_at < oldest)
        }
        connection.executemany("DELETE FROM layers WHERE key=?", [(key,) for key in layers])
        return layers

    def _discard(self, layers: set[str], blobs: set[Digest]) -> None:
        if layers or blobs:
            point("remove-before-rename")
        for key in layers:
            _recovery.discard(self.paths, self.paths.layer(key))
            point("remove-between-renames")
            _recovery.discard(self.paths, self.paths.tape(key))
        used = {digest for image in self.snapshot.images.values() for digest in image.blobs}
        used |= {rootfs.config for rootfs in self.snapshot.rootfs.values()}
        for digest in blobs - used:
            if digest not in self._blob_claims:
                _recovery.discard(self.paths, self.paths.blob(digest))
        if layers or blobs:
            point("remove-after-rename")

    # -- root filesystems

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
                _recovery.discard(self.paths, self.paths.writable(rootfs.key))
                raise
            self.snapshot = _changes.with_rootfs(self.snapshot, rootfs)
            point("rootfs-after-row")
            return rootfs

        return await self._database.run(work)

    async def remove_rootfs(self, keys: Iterable[str]) -> None:
        """Forget root filesystems and discard their writable layers, and layers that only they had."""
        gone = set(keys)

        def work(connection: sqlite3.Connection) -> None:
            records = [self.snapshot.rootfs[key] for key in gone if key in self.snapshot.rootfs]
            if not records:
                return
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
                _recovery.discard(self.paths, self.paths.writable(record.key))
            if orphaned:
                self.snapshot = _changes.without_images(self.snapshot, set(), layers)
                self._discard(layers, {record.config for record in records})

        await self._database.run(work)

    # -- freeing

    def free_soon(self) -> None:
        """Have what was discarded freed in the background."""
        self.trash.set()

    async def empty_trash(self) -> int:
        """Free what was discarded, in a thread; returns how many trees."""
        async with self._emptying:
            return await asyncio.to_thread(_recovery.empty_trash, self.paths)

    def free_bytes(self) -> int:
        """What the file system of the store has left for the daemon."""
        return shutil.disk_usage(self.paths.root).free


def disk_error(error: OSError, step: str) -> DiskFull | StoreUnusable:
    """What a failed write means."""
    import errno

    text = f"{step}: {error.strerror or error}"
    return DiskFull(text) if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnusable(text)
