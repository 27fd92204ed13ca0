"""Media types of manifests, configs and layers (OCI image spec, Docker schema 2)."""

from __future__ import annotations

import enum
from typing import Final


class MediaType(enum.StrEnum):
    """Those that triptych knows by name."""

    OCI_INDEX = "application/vnd.oci.image.index.v1+json"
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    OCI_ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json"
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
    OCI_EMPTY = "application/vnd.oci.empty.v1+json"
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
    OCI_FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    OCI_FOREIGN_LAYER_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    OCI_FOREIGN_LAYER_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
    DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
    DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
    DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar"
    DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    COSIGN_SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"
    COSIGN_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
    SIGSTORE_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class Compression(enum.Enum):
    """How a layer is packed. UNKNOWN: look at its first bytes."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    UNKNOWN = "unknown"


INDEX_TYPES: Final = frozenset({MediaType.OCI_INDEX.value, MediaType.DOCKER_INDEX.value})
MANIFEST_TYPES: Final = frozenset({MediaType.OCI_MANIFEST.value, MediaType.DOCKER_MANIFEST.value})
SCHEMA1_TYPES: Final = frozenset({MediaType.DOCKER_SCHEMA1.value, MediaType.DOCKER_SCHEMA1_SIGNED.value})
CONFIG_TYPES: Final = frozenset({MediaType.OCI_CONFIG.value, MediaType.DOCKER_CONFIG.value})
FOREIGN_LAYER_TYPES: Final = frozenset(
    {
        MediaType.OCI_FOREIGN_LAYER.value,
        MediaType.OCI_FOREIGN_LAYER_GZIP.value,
        MediaType.OCI_FOREIGN_LAYER_ZSTD.value,
        MediaType.DOCKER_FOREIGN_LAYER.value,
        MediaType.DOCKER_FOREIGN_LAYER_GZIP.value,
    }
)
_LAYERS: Final = {
    MediaType.OCI_LAYER.value: Compression.NONE,
    MediaType.OCI_LAYER_GZIP.value: Compression.GZIP,
    MediaType.OCI_LAYER_ZSTD.value: Compression.ZSTD,
    MediaType.OCI_FOREIGN_LAYER.value: Compression.NONE,
    MediaType.OCI_FOREIGN_LAYER_GZIP.value: Compression.GZIP,
    MediaType.OCI_FOREIGN_LAYER_ZSTD.value: Compression.ZSTD,
    # Docker's name without suffix is used for gzip as well, so only the bytes tell.
    MediaType.DOCKER_LAYER.value: Compression.UNKNOWN,
    MediaType.DOCKER_LAYER_GZIP.value: Compression.GZIP,
    MediaType.DOCKER_LAYER_ZSTD.value: Compression.ZSTD,
    MediaType.DOCKER_FOREIGN_LAYER.value: Compression.UNKNOWN,
    MediaType.DOCKER_FOREIGN_LAYER_GZIP.value: Compression.GZIP,
}
_OCI_LAYERS: Final = {
    MediaType.DOCKER_LAYER.value: MediaType.OCI_LAYER.value,
    MediaType.DOCKER_LAYER_GZIP.value: MediaType.OCI_LAYER_GZIP.value,
    MediaType.DOCKER_LAYER_ZSTD.value: MediaType.OCI_LAYER_ZSTD.value,
    MediaType.DOCKER_FOREIGN_LAYER.value: MediaType.OCI_FOREIGN_LAYER.value,
    MediaType.DOCKER_FOREIGN_LAYER_GZIP.value: MediaType.OCI_FOREIGN_LAYER_GZIP.value,
}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def plain(media_type: str) -> str:
    """A media type without parameters, lower case (`application/json; charset=utf-8`)."""
    return media_type.partition(";")[0].strip().lower()


def is_layer(media_type: str) -> bool:
    """Whether it names a root filesystem layer (a tar), packed or not."""
    return media_type in _LAYERS


def oci_layer(media_type: str) -> str:
    """What an OCI manifest calls a layer that Docker's calls `media_type`; other types stay.

    containers/image took no manifest that mixes the two for years.
    """
    return _OCI_LAYERS.get(media_type, media_type)


def compression_of(media_type: str) -> Compression:
    """What a layer's media type says about its packing; types that are no layers are UNKNOWN."""
    return _LAYERS.get(media_type, Compression.UNKNOWN)


def sniff_compression(head: bytes) -> Compression:
    """What the first bytes of a blob say: GZIP, ZSTD (also behind a skippable frame), else NONE."""
    if head.startswith(_GZIP_MAGIC):
        return Compression.GZIP
    if head.startswith(_ZSTD_MAGIC) or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return Compression.ZSTD
    return Compression.NONE
