"""Descriptors, manifests, indexes and image configs, as msgspec Structs.

Unknown fields are ignored, as the specs demand. Lists and maps that Go programs write as `null` are None;
what else is null counts as missing.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from triptych_oci.digest import Digest
from triptych_oci.media_types import CONFIG_TYPES, FOREIGN_LAYER_TYPES, INDEX_TYPES

Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
ANNOTATION_REF_NAME: Final = "org.opencontainers.image.ref.name"
ANNOTATION_IMAGE_NAME: Final = "io.containerd.image.name"


class PlatformSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """The platform of an index entry as it is written; `Platform.of` normalizes it."""

    architecture: str = ""
    os: str = ""
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: tuple[str, ...] | None = msgspec.field(default=None, name="os.features")
    variant: str | None = None


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A reference to content by digest and size."""

    media_type: str
    digest: Digest
    size: Size
    urls: tuple[str, ...] | None = None
    annotations: dict[str, str] | None = None
    data: str | None = None
    platform: PlatformSpec | None = None
    artifact_type: str | None = None

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def is_foreign(self) -> bool:
        """Whether the blob may live at `urls` instead of in the registry."""
        return self.media_type in FOREIGN_LAYER_TYPES


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image manifest, OCI or Docker schema 2; also every OCI artifact."""

    schema_version: int
    config: Descriptor
    media_type: str = ""
    layers: tuple[Descriptor, ...] | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None

    @property
    def is_image(self) -> bool:
        """Whether it has an image config, so that a container can run from it."""
        return self.config.media_type in CONFIG_TYPES

    @property
    def kind(self) -> str:
        """The artifact type: what it says, else the config's media type (OCI image spec 1.1)."""
        return self.artifact_type or self.config.media_type


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image index, or Docker's manifest list."""

    schema_version: int
    media_type: str = ""
    manifests: tuple[Descriptor, ...] | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class RootFs(msgspec.Struct, frozen=True):
    """The layers of an image by the digests of their uncompressed tars, lowest first."""

    type: str = "layers"
    diff_ids: tuple[Digest, ...] | None = None


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a layer came to be."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class ContainerConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """What a container of the image runs with, unless told otherwise."""

    user: str = ""
    exposed_ports: dict[str, Any] | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    args_escaped: bool = False


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The config blob of an image; its digest is the image ID."""

    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    created: str | None = None
    author: str | None = None
    config: ContainerConfig | None = None
    rootfs: RootFs = RootFs()
    history: tuple[History, ...] | None = None

    @property
    def settings(self) -> ContainerConfig:
        """`config`, or an empty one."""
        return self.config or ContainerConfig()

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return self.rootfs.diff_ids or ()
