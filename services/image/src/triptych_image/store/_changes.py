"""How a snapshot changes; each function gives a new one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from triptych_oci import Digest

from triptych_image.store.records import ImageRecord, LayerRecord, NameRecord, RootfsRecord, Snapshot


def complete(
    images: Mapping[str, ImageRecord],
    names: Mapping[str, NameRecord],
    layers: Mapping[str, LayerRecord],
    rootfs: Mapping[str, RootfsRecord],
    sizes: Mapping[Digest, int],
) -> Snapshot:
    """A snapshot with everything derived filled in.

    :param sizes: bytes on disk of the images' blobs, and maybe of others.
    """
    tags: defaultdict[str, list[str]] = defaultdict(list)
    digests: defaultdict[str, list[str]] = defaultdict(list)
    for reference in sorted(names):
        kind = digests if "@" in reference else tags
        kind[names[reference].image_id].append(reference)
    used = {digest for image in images.values() for digest in image.blobs}
    blob_sizes = {digest: sizes[digest] for digest in used}
    return Snapshot(
        images=images,
        names=names,
        layers=layers,
        rootfs=rootfs,
        tags={key: tuple(value) for key, value in tags.items()},
        digests={key: tuple(value) for key, value in digests.items()},
        blob_sizes=blob_sizes,
        layer_bytes=sum(layer.size for layer in layers.values()) + sum(blob_sizes.values()),
        layer_inodes=sum(layer.inodes for layer in layers.values()),
    )


def with_layers(old: Snapshot, layers: Iterable[LayerRecord]) -> Snapshot:
    """With layers added or replaced."""
    added = {layer.key: layer for layer in layers}
    return complete(old.images, old.names, {**old.layers, **added}, old.rootfs, old.blob_sizes)


def with_image(
    old: Snapshot, image: ImageRecord, names: Iterable[NameRecord], sizes: Mapping[Digest, int]
) -> Snapshot:
    """With an image and names added or replaced; its layers are durable from now on.

    :param sizes: bytes on disk of its blobs.
    """
    own = set(image.layers)
    layers = {k: replace(v, boot="") if k in own and v.boot else v for k, v in old.layers.items()}
    return complete(
        {**old.images, image.id: image},
        {**old.names, **{n.reference: n for n in names}},
        layers,
        old.rootfs,
        {**old.blob_sizes, **sizes},
    )


def without_images(old: Snapshot, images: set[str], layers: set[str]) -> Snapshot:
    """Without images, their names, and layers."""
    return complete(
        {key: value for key, value in old.images.items() if key not in images},
        {key: value for key, value in old.names.items() if value.image_id not in images},
        {key: value for key, value in old.layers.items() if key not in layers},
        old.rootfs,
        old.blob_sizes,
    )


def with_rootfs(old: Snapshot, rootfs: RootfsRecord) -> Snapshot:
    """With a root filesystem added; nothing else changes, so nothing is summed up again."""
    return replace(old, rootfs={**old.rootfs, rootfs.key: rootfs})


def without_rootfs(old: Snapshot, keys: set[str]) -> Snapshot:
    """Without root filesystems."""
    return replace(old, rootfs={key: value for key, value in old.rootfs.items() if key not in keys})
