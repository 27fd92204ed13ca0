"""What all parts of the store share: the snapshot, the database, claims, and how things go away."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from triptych_linux.process import shielded
from triptych_oci import Digest

from triptych_image.errors import StoreUnusable
from triptych_image.faults import point
from triptych_image.store import _recovery, durability
from triptych_image.store._database import Database, DatabaseBroken
from triptych_image.store._trash import discard, empty_trash
from triptych_image.store.ballast import Ballast
from triptych_image.store.paths import Paths
from triptych_image.store.records import Snapshot

log = logging.getLogger(__name__)

_CLEANUP_SECONDS: Final = 30.0


class Core:
    """A store that is open.

    :ivar snapshot: everything there is, at this moment.
    :ivar boot: the current boot's ID.
    :ivar trash: set when there may be something to free.
    """

    def __init__(self, paths: Paths, *, sync: bool = True, keep_seconds: float = 1800.0) -> None:
        self.paths = paths
        self.snapshot = Snapshot()
        self.boot = durability.boot_id()
        self.keep_seconds = keep_seconds
        self.trash = asyncio.Event()
        self._ballast = Ballast(paths.ballast)
        self._database = Database(paths.database, self._ballast)
        self._claims: Counter[str] = Counter()
        self._blob_claims: Counter[str] = Counter()
        self._held_partials: set[str] = set()
        self._lock_fd = -1
        self._emptying = asyncio.Lock()
        self._syncs = sync

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
            self._database = Database(self.paths.database, self._ballast)
            self.snapshot = await self._database.run(start)
        await asyncio.to_thread(self._ballast.make)

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    async def sync(self) -> None:
        """Return once what was written is durable, unless the settings do without.

        :raises OSError: when the disk says that something could not be written.
        """
        if self._syncs:
            await durability.sync(self.paths.root)

    # -- claims

    async def claim_layers(self, keys: Sequence[str]) -> set[str]:
        """For `Hold`."""

        def work(_: sqlite3.Connection) -> set[str]:
            self._claims.update(keys)
            return {key for key in keys if key in self.snapshot.layers}

        return await self._database.run(work)

    def release(self, layers: Sequence[str], blobs: Sequence[Digest]) -> None:
        """For `Hold`. Blobs that found no owner go at once, layers wait for the next attempt."""
        loop = asyncio.get_running_loop()

        def work() -> None:
            self._claims.subtract(layers)
            self._claims = +self._claims
            self._blob_claims.subtract(blobs)
            self._blob_claims = +self._blob_claims
            if self._discard(set(), set(blobs)):
                loop.call_soon_threadsafe(self.trash.set)

        self._database.post(work)

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

    def _discard(self, layers: set[str], blobs: set[Digest]) -> bool:
        """Move layers, and blobs that nobody has, to the trash; returns whether there was one."""
        used = {digest for image in self.snapshot.images.values() for digest in image.blobs}
        used |= {rootfs.config for rootfs in self.snapshot.rootfs.values()}
        unused = [digest for digest in blobs - used if digest not in self._blob_claims]
        if not layers and not unused:
            return False
        point("remove-before-rename")
        for key in layers:
            discard(self.paths, self.paths.layer(key))
            point("remove-between-renames")
            discard(self.paths, self.paths.tape(key))
        for digest in unused:
            discard(self.paths, self.paths.blob(digest))
        point("remove-after-rename")
        return True

    # -- freeing

    async def drop(self, *places: Path) -> None:
        """Discard what was being made, as far as it is there; a cancelled caller does not stop it."""

        def work() -> None:
            for place in places:
                discard(self.paths, place)

        await shielded(asyncio.to_thread(work), _CLEANUP_SECONDS)
        self.free_soon()

    def free_soon(self) -> None:
        """Have what was discarded freed in the background."""
        self.trash.set()

    async def empty_trash(self) -> None:
        """Free what was discarded, in a thread."""
        async with self._emptying:
            await asyncio.to_thread(empty_trash, self.paths)
            await asyncio.to_thread(self._ballast.make)

    def free_bytes(self) -> int:
        """What the file system of the store has left for the daemon."""
        return shutil.disk_usage(self.paths.root).free
