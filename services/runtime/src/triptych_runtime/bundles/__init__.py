"""Bundles: root file systems mounted, image volumes mounted, config.json written; and all of it undone."""

from triptych_runtime.bundles.mounting import mount_image_volume, mount_rootfs
from triptych_runtime.bundles.write import TARGET_PIN, remove_bundle, write_bundle

__all__ = [
    "TARGET_PIN",
    "mount_image_volume",
    "mount_rootfs",
    "remove_bundle",
    "write_bundle",
]
