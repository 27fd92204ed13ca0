"""What the store knows, as immutable records."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from triptych_oci import Digest


class ImageKind(enum.Enum):
    """What an image is good for."""

    IMAGE = "image"
    """Has an image config: containers run from it."""
    ARTIFACT = "artifact"
    """Any other OCI manifest: a volume with its blobs as files."""


class RootfsKind(enum.Enum):
    """What a key stands for."""

    CONTAINER = "container"
    """A writable root filesystem."""
    VOLUME = "volume"
    """A read-only view of an image."""


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """An unpacked layer.

    :param key: its directory name.
    :param diff_id: digest of its archive; for what the store made itself, "triptych:" and what it is.
    :param size: bytes on disk.
    :param complete: whether its tape gives the archive back.
    :param boot: boot in which it was written and not synced yet; "" once it is durable.
    :param created_at: Unix time in nanoseconds.
    """

    key: str
    diff_id: str
    size: int
    inodes: int
    complete: bool
    boot: str
    created_at: int


@dataclass(frozen=True, slots=True)
class LayerMarks:
    """Directories of a layer that want looking after; on disk only, since a stranger says how many they are.

    :param implied: those that its archive had no entry for.
    :param opaque: those that hide what is below them.
    """

    implied: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image that is whole.

    :param id: digest of the config; of the manifest for an artifact.
    :param manifest: digest of the manifest it came by last.
    :param layers: keys, lowest first; a layer of the store's own may be on top.
    :param blobs: manifest, indexes above it, config, and packed layers that are kept; sorted.
    :param user: `User` of the config, its first 256 characters.
    :param annotations: of the manifest, where they are few.
    :param root_mode: mode and owner of its root directory.
    :param source: reference that its blobs can be fetched again by; "" when loaded from a file.
    :param created_at: Unix time in nanoseconds of when it came.
    """

    id: str
    kind: ImageKind
    manifest: Digest
    config: Digest
    layers: tuple[str, ...]
    blobs: tuple[Digest, ...]
    blob_bytes: int
    user: str
    annotations: Mapping[str, str]
    root_mode: int
    root_uid: int
    root_gid: int
    source: str
    created_at: int


@dataclass(frozen=True, slots=True)
class NameRecord:
    """A reference that an image is known by: "host/name:tag" or "host/name@digest".

    :param target: digest that the reference stood for: of the index, where there is one.
    """

    reference: str
    image_id: str
    target: Digest


@dataclass(frozen=True, slots=True)
class RootfsRecord:
    """A root filesystem or volume that somebody uses.

    :param layers: keys, lowest first.
    :param config: digest of the image's config.
    :param project: quota project of the writable layer, 0 for none.
    """

    key: str
    kind: RootfsKind
    image_id: str
    config: Digest
    layers: tuple[str, ...]
    image_ref: str
    sub_path: str
    idmapped: bool
    size_limit: int
    project: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment. Never changed: a write makes a new one, so readers wait for nobody.

    :ivar tags: by image ID, references with a tag, sorted.
    :ivar digests: by image ID, references with a digest, sorted.
    :ivar blob_sizes: bytes on disk of blobs that images have.
    :ivar layer_bytes: bytes on disk of all layers and blobs, each once.
    """

    images: Mapping[str, ImageRecord] = field(default_factory=dict)
    names: Mapping[str, NameRecord] = field(default_factory=dict)
    layers: Mapping[str, LayerRecord] = field(default_factory=dict)
    rootfs: Mapping[str, RootfsRecord] = field(default_factory=dict)
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blob_sizes: Mapping[Digest, int] = field(default_factory=dict)
    layer_bytes: int = 0
    layer_inodes: int = 0

    def image_bytes(self, image: ImageRecord) -> int:
        """Bytes on disk that an image takes, shared layers included."""
        layers = self.layers
        return image.blob_bytes + sum(layers[key].size for key in set(image.layers) if key in layers)
