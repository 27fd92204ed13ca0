"""The tables. `user_version` counts their shape; a store of a later version is refused."""

VERSION = 1

SCHEMA = """
CREATE TABLE layers (
    key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, size INTEGER NOT NULL, inodes INTEGER NOT NULL,
    complete INTEGER NOT NULL, implied TEXT NOT NULL, opaque TEXT NOT NULL, boot TEXT NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE images (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, manifest TEXT NOT NULL, config TEXT NOT NULL,
    user TEXT NOT NULL, annotations TEXT NOT NULL, blob_bytes INTEGER NOT NULL,
    root_mode INTEGER NOT NULL, root_uid INTEGER NOT NULL, root_gid INTEGER NOT NULL,
    source TEXT NOT NULL, created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE image_layers (
    image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL, layer TEXT NOT NULL REFERENCES layers(key),
    PRIMARY KEY (image_id, position)
) WITHOUT ROWID;
CREATE INDEX image_layers_layer ON image_layers(layer);
CREATE TABLE image_blobs (
    image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, digest TEXT NOT NULL,
    PRIMARY KEY (image_id, digest)
) WITHOUT ROWID;
CREATE INDEX image_blobs_digest ON image_blobs(digest);
CREATE TABLE names (
    reference TEXT PRIMARY KEY, image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    target TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX names_image ON names(image_id);
CREATE TABLE rootfs (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, image_id TEXT NOT NULL, config TEXT NOT NULL,
    image_ref TEXT NOT NULL, sub_path TEXT NOT NULL, idmapped INTEGER NOT NULL,
    size_limit INTEGER NOT NULL, project INTEGER NOT NULL, created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE rootfs_layers (
    key TEXT NOT NULL REFERENCES rootfs(key) ON DELETE CASCADE, position INTEGER NOT NULL,
    layer TEXT NOT NULL REFERENCES layers(key), PRIMARY KEY (key, position)
) WITHOUT ROWID;
CREATE INDEX rootfs_layers_layer ON rootfs_layers(layer);
"""
