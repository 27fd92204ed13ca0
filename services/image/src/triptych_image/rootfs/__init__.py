"""Root filesystems for containers: writable layers, image volumes, their usage and limits."""
