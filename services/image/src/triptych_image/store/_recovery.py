"""What a start finds: rows and files that do not agree after a crash, and what becomes of them.

Files without a row are leftovers. Rows without files mean a damaged store: what they describe is dropped,
with a warning, so that the next pull fetches it again.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path

from triptych_image.faults import point
from triptych_image.store import _rows
from triptych_image.store._changes import complete
from triptych_image.store._database import transaction
from triptych_image.store._disk import size_on_disk
from triptych_image.store._trash import discard
from triptych_image.store.paths import Paths
from triptych_image.store.records import RootfsKind, Snapshot

log = logging.getLogger(__name__)


def recover(connection: sqlite3.Connection, paths: Paths, boot: str, keep_seconds: float) -> Snapshot:
    """Make rows and files agree; leftovers go to the trash, which is emptied later.

    :param boot: the current boot; layers that another one wrote and did not sync are not trusted.
    :param keep_seconds: how old a finished layer that no image has may be.
    """
    oldest = time.time_ns() - int(keep_seconds * 1e9)
    unsynced = {key for key, layer in _rows.read_layers(connection).items() if layer.boot not in ("", boot)}
    present = {entry.name for entry in os.scandir(paths.layers)}
    lost = {key for key in _rows.read_layers(connection) if key not in present} | unsynced
    with transaction(connection, durable=True):
        _drop_broken_images(connection, paths, lost)
        _drop_rootfs(connection, paths, lost)
        connection.executemany("DELETE FROM layers WHERE key=?", [(key,) for key in lost])
        for key in unreferenced(connection):
            row = connection.execute("SELECT created_at FROM layers WHERE key=?", (key,)).fetchone()
            if row[0] < oldest:
                connection.execute("DELETE FROM layers WHERE key=?", (key,))
    point("recover-rows")
    images = _rows.read_images(connection)
    snapshot = complete(
        images,
        _rows.read_names(connection),
        _rows.read_layers(connection),
        _rows.read_rootfs(connection),
        {digest: size_on_disk(paths.blob(digest)) for image in images.values() for digest in image.blobs},
    )
    discard_strays(paths, snapshot, oldest)
    point("recover-files")
    return snapshot


def unreferenced(connection: sqlite3.Connection) -> list[str]:
    """Layers that neither an image nor a root filesystem has."""
    rows = connection.execute(
        "SELECT key FROM layers WHERE key NOT IN (SELECT layer FROM image_layers) "
        "AND key NOT IN (SELECT layer FROM rootfs_layers)"
    )
    return [row[0] for row in rows]


def _drop_broken_images(connection: sqlite3.Connection, paths: Paths, lost: set[str]) -> None:
    blobs = {
        f"{entry.name}:{file.name}" for entry in os.scandir(paths.blobs) for file in os.scandir(entry.path)
    }
    for image in _rows.read_images(connection).values():
        missing = [key for key in image.layers if key in lost]
        missing += [digest for digest in image.blobs if digest not in blobs]
        if missing:
            log.warning("image is not whole, dropped", extra={"image": image.id, "missing": missing[:5]})
            connection.execute("DELETE FROM images WHERE id=?", (image.id,))


def _drop_rootfs(connection: sqlite3.Connection, paths: Paths, lost: set[str]) -> None:
    present = {entry.name for entry in os.scandir(paths.rootfs)}
    for rootfs in _rows.read_rootfs(connection).values():
        gone = rootfs.kind is RootfsKind.CONTAINER and paths.writable(rootfs.key).name not in present
        if gone or lost.intersection(rootfs.layers):
            log.warning("root filesystem is not whole, dropped", extra={"key": rootfs.key})
            connection.execute("DELETE FROM rootfs WHERE key=?", (rootfs.key,))


def discard_strays(paths: Paths, snapshot: Snapshot, oldest: int) -> int:
    """Move files that no row knows to the trash; returns how many."""
    known_blobs = {
        f"{digest.algorithm}/{digest.hex}" for image in snapshot.images.values() for digest in image.blobs
    }
    known_blobs |= {f"{r.config.algorithm}/{r.config.hex}" for r in snapshot.rootfs.values()}
    known_rootfs = {
        paths.writable(rootfs.key).name
        for rootfs in snapshot.rootfs.values()
        if rootfs.kind is RootfsKind.CONTAINER
    }
    strays = [Path(entry.path) for entry in os.scandir(paths.tmp)]
    for directory in (paths.layers, paths.tapes):
        strays += [Path(e.path) for e in os.scandir(directory) if e.name not in snapshot.layers]
    strays += [Path(e.path) for e in _containers(paths) if e.name not in known_rootfs]
    for algorithm in os.scandir(paths.blobs):
        strays += [
            Path(e.path)
            for e in os.scandir(algorithm.path)
            if f"{algorithm.name}/{e.name}" not in known_blobs
        ]
    strays += [Path(e.path) for e in os.scandir(paths.partials) if e.stat().st_mtime_ns < oldest]
    for path in strays:
        discard(paths, path)
    return len(strays)


def quarantine(paths: Paths) -> Path:
    """Put a store aside whose database is broken, so that the daemon can start with an empty one.

    Nothing is deleted: containers that run have its layers mounted, and keep them mounted.
    """
    aside = paths.root / f"broken-{time.strftime('%Y%m%dT%H%M%S')}"
    aside.mkdir(mode=0o700)
    names = [paths.database.name + suffix for suffix in ("", "-wal", "-shm")]
    for path in (*(paths.root / name for name in names), paths.layers, paths.tapes, paths.blobs):
        if path.exists():
            os.rename(path, aside / path.name)
    inside = paths.rootfs.parent == paths.root
    name = f"{paths.rootfs.name}-{aside.name}"
    try:
        os.rename(paths.rootfs, aside / paths.rootfs.name if inside else paths.rootfs.with_name(name))
    except OSError:
        # A mount point cannot be moved, what is in it can.
        hidden = paths.rootfs / f".{aside.name}"
        hidden.mkdir(mode=0o700)
        for entry in _containers(paths):
            os.rename(entry.path, hidden / entry.name)
    return aside


def _containers(paths: Paths) -> list[os.DirEntry[str]]:
    """Writable layers as they lie there; what begins with a dot is none."""
    return [entry for entry in os.scandir(paths.rootfs) if not entry.name.startswith(".")]
