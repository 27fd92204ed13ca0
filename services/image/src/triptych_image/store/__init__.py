"""What is stored: blobs, unpacked layers, images, their names, and who uses them."""

from triptych_image.store._disk import disk_error
from triptych_image.store.holds import Hold
from triptych_image.store.paths import Paths, layer_key
from triptych_image.store.records import (
    ImageKind,
    ImageRecord,
    LayerMarks,
    LayerRecord,
    NameRecord,
    RootfsKind,
    RootfsRecord,
    Snapshot,
)
from triptych_image.store.store import Store

__all__ = [
    "Hold",
    "ImageKind",
    "ImageRecord",
    "LayerMarks",
    "LayerRecord",
    "NameRecord",
    "Paths",
    "RootfsKind",
    "RootfsRecord",
    "Snapshot",
    "Store",
    "disk_error",
    "layer_key",
]
