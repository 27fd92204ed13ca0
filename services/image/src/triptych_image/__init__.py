"""The image daemon: registries, blobs, layers and root filesystems."""

__version__ = "0.1.0"
