"""What goes wrong in the image daemon, apart from registries and policy (which have their own modules)."""

from __future__ import annotations

from triptych_errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

REASON_VOLUME = "ImageVolumeMountFailed"
"""k8s.io/cri-api/pkg/errors; the kubelet shows it when it begins the message."""


class InvalidRequest(InvalidArgument):
    """A field that is missing or malformed; the message names it."""


class ImageNotFound(NotFound):
    """No image of that name or ID."""


class AmbiguousImage(InvalidArgument):
    """A short ID that several images begin with."""


class VolumePathNotFound(NotFound):
    """A sub path that the image of a volume does not have."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{REASON_VOLUME}: {message}")


class RootfsConflict(AlreadyExists):
    """A root filesystem of that key exists for another image."""


class QuotaUnsupported(FailedPrecondition):
    """The file system of writable layers has no project quota."""


class LayerMalformed(FailedPrecondition):
    """A layer that breaks its format or asks for what no layer may do."""


class LayerTooLarge(ResourceExhausted):
    """A layer above the configured limits."""


class DiskFull(ResourceExhausted):
    """The file system of the store is full, over quota, or below its reserve."""


class LayerMismatch(DataLoss):
    """Content of another digest than its manifest or config says."""


class LayerDamaged(DataLoss):
    """Stored content that is not what it was."""


class UnpackFailed(Internal):
    """The unpack worker failed though the layer is not to blame."""


class ImageMalformed(FailedPrecondition):
    """A manifest and a config that do not fit together, or an archive that is no image."""


class StoreUnusable(FailedPrecondition):
    """The store's directory or database cannot be used."""


class NotReproducible(FailedPrecondition):
    """The archive of a layer cannot be made again from what is stored."""
