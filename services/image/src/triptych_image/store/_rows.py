"""Records to rows and back."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict

from triptych_oci import Digest

from triptych_image.store.records import (
    ImageKind,
    ImageRecord,
    LayerMarks,
    LayerRecord,
    NameRecord,
    RootfsKind,
    RootfsRecord,
)


def insert_layer(connection: sqlite3.Connection, layer: LayerRecord, marks: LayerMarks) -> None:
    """Add a layer."""
    connection.execute(
        "INSERT INTO layers VALUES (?,?,?,?,?,?,?,?,?)",
        (
            layer.key,
            layer.diff_id,
            layer.size,
            layer.inodes,
            layer.complete,
            json.dumps(marks.implied),
            json.dumps(marks.opaque),
            layer.boot,
            layer.created_at,
        ),
    )


def insert_image(connection: sqlite3.Connection, image: ImageRecord) -> None:
    """Add an image, or replace it with its lists; its names stay."""
    connection.execute(
        "INSERT INTO images VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET "
        "manifest=excluded.manifest, annotations=excluded.annotations, blob_bytes=excluded.blob_bytes, "
        "root_mode=excluded.root_mode, root_uid=excluded.root_uid, root_gid=excluded.root_gid, "
        "source=excluded.source",
        (
            image.id,
            image.kind.value,
            image.manifest,
            image.config,
            image.user,
            json.dumps(dict(image.annotations)),
            image.blob_bytes,
            image.root_mode,
            image.root_uid,
            image.root_gid,
            image.source,
            image.created_at,
        ),
    )
    connection.execute("DELETE FROM image_layers WHERE image_id=?", (image.id,))
    connection.execute("DELETE FROM image_blobs WHERE image_id=?", (image.id,))
    connection.executemany(
        "INSERT INTO image_layers VALUES (?,?,?)",
        [(image.id, position, key) for position, key in enumerate(image.layers)],
    )
    connection.executemany(
        "INSERT INTO image_blobs VALUES (?,?)", [(image.id, digest) for digest in dict.fromkeys(image.blobs)]
    )


def insert_name(connection: sqlite3.Connection, name: NameRecord) -> None:
    """Add a name, or point it elsewhere."""
    connection.execute(
        "INSERT OR REPLACE INTO names VALUES (?,?,?)", (name.reference, name.image_id, name.target)
    )


def insert_rootfs(connection: sqlite3.Connection, rootfs: RootfsRecord) -> None:
    """Add a root filesystem."""
    connection.execute(
        "INSERT INTO rootfs VALUES (?,?,?,?,?,?,?,?,?,?)",
        (
            rootfs.key,
            rootfs.kind.value,
            rootfs.image_id,
            rootfs.config,
            rootfs.image_ref,
            rootfs.sub_path,
            rootfs.idmapped,
            rootfs.size_limit,
            rootfs.project,
            rootfs.created_at,
        ),
    )
    connection.executemany(
        "INSERT INTO rootfs_layers VALUES (?,?,?)",
        [(rootfs.key, position, layer) for position, layer in enumerate(rootfs.layers)],
    )


def read_layers(connection: sqlite3.Connection) -> dict[str, LayerRecord]:
    """All layers by key."""
    rows = connection.execute("SELECT key, diff_id, size, inodes, complete, boot, created_at FROM layers")
    return {
        row[0]: LayerRecord(
            key=row[0],
            diff_id=row[1],
            size=row[2],
            inodes=row[3],
            complete=bool(row[4]),
            boot=row[5],
            created_at=row[6],
        )
        for row in rows
    }


def read_marks(connection: sqlite3.Connection, key: str) -> LayerMarks:
    """The marks of a layer; none of one that is not there."""
    row = connection.execute("SELECT implied, opaque FROM layers WHERE key=?", (key,)).fetchone()
    return LayerMarks(*(tuple(json.loads(text)) for text in row)) if row is not None else LayerMarks()


def read_images(connection: sqlite3.Connection) -> dict[str, ImageRecord]:
    """All images by ID."""
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for image_id, layer in connection.execute(
        "SELECT image_id, layer FROM image_layers ORDER BY image_id, position"
    ):
        layers[image_id].append(layer)
    blobs: defaultdict[str, list[Digest]] = defaultdict(list)
    for image_id, digest in connection.execute(
        "SELECT image_id, digest FROM image_blobs ORDER BY image_id, digest"
    ):
        blobs[image_id].append(Digest(digest))
    rows = connection.execute(
        "SELECT id, kind, manifest, config, user, annotations, blob_bytes, root_mode, root_uid, root_gid, "
        "source, created_at FROM images"
    )
    return {
        row[0]: ImageRecord(
            id=row[0],
            kind=ImageKind(row[1]),
            manifest=Digest(row[2]),
            config=Digest(row[3]),
            layers=tuple(layers[row[0]]),
            blobs=tuple(blobs[row[0]]),
            user=row[4],
            annotations=json.loads(row[5]),
            blob_bytes=row[6],
            root_mode=row[7],
            root_uid=row[8],
            root_gid=row[9],
            source=row[10],
            created_at=row[11],
        )
        for row in rows
    }


def read_names(connection: sqlite3.Connection) -> dict[str, NameRecord]:
    """All names by reference."""
    rows = connection.execute("SELECT reference, image_id, target FROM names")
    return {row[0]: NameRecord(row[0], row[1], Digest(row[2])) for row in rows}


def read_rootfs(connection: sqlite3.Connection) -> dict[str, RootfsRecord]:
    """All root filesystems by key."""
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for key, layer in connection.execute("SELECT key, layer FROM rootfs_layers ORDER BY key, position"):
        layers[key].append(layer)
    rows = connection.execute(
        "SELECT key, kind, image_id, config, image_ref, sub_path, idmapped, size_limit, project, created_at "
        "FROM rootfs"
    )
    return {
        row[0]: RootfsRecord(
            key=row[0],
            kind=RootfsKind(row[1]),
            image_id=row[2],
            config=Digest(row[3]),
            layers=tuple(layers[row[0]]),
            image_ref=row[4],
            sub_path=row[5],
            idmapped=bool(row[6]),
            size_limit=row[7],
            project=row[8],
            created_at=row[9],
        )
        for row in rows
    }
