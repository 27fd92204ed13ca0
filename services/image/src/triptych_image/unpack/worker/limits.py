"""How much a layer may ask for."""

from __future__ import annotations

PATH_MAX = 4095
DEPTH_MAX = 255
"""Directories above an entry; deeper trees are legal for Linux, but nothing walks them well."""
PAX_MAX = 1 << 20
"""Bytes of one extended header; Go's archive/tar takes 1 MiB as well."""
LONG_NAME_MAX = 1 << 16
XATTR_VALUE_MAX = 1 << 16
"""XATTR_SIZE_MAX of Linux."""
XATTRS_MAX = 64
SPARSE_SEGMENTS_MAX = 1 << 17
LISTED_MAX = 1 << 16
"""Implied and opaque directories, which go into the report one by one."""
LISTED_BYTES_MAX = 1 << 22
"""Bytes of their names."""
TRAILER_MAX = 1 << 24
"""Bytes behind the end of the archive."""
ZSTD_WINDOW_MAX = 1 << 27
RATIO_FLOOR = 1 << 30
"""Uncompressed bytes below which no ratio is too much."""


class Limits:
    """Limits of one job; 0 is none.

    :param bytes: of the uncompressed archive, and of all files with their holes.
    :param entries: of the archive.
    :param ratio: uncompressed to compressed, enforced beyond `ratio_floor` bytes.
    """

    __slots__ = ("bytes", "entries", "ratio", "ratio_floor")

    def __init__(
        self, bytes: int = 0, entries: int = 0, ratio: int = 0, ratio_floor: int = RATIO_FLOOR
    ) -> None:
        self.bytes = bytes
        self.entries = entries
        self.ratio = ratio
        self.ratio_floor = ratio_floor
