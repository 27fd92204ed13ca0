"""Checkpoint and restore with CRIU, through the OCI runtime's own commands."""

from triptych_runtime.checkpoint.archive import write_archive
from triptych_runtime.checkpoint.capture import capture
from triptych_runtime.checkpoint.criu import Criu
from triptych_runtime.checkpoint.manifest import ContainerEntry, PodManifest, read_manifest, write_manifest
from triptych_runtime.checkpoint.rootfs import apply_diff

__all__ = [
    "ContainerEntry",
    "Criu",
    "PodManifest",
    "apply_diff",
    "capture",
    "read_manifest",
    "write_archive",
    "write_manifest",
]
