"""The image daemon: registries, blobs, layers and root filesystems."""
