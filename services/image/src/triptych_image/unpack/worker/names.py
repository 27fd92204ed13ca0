"""Names of members, as relative paths."""

from __future__ import annotations

from triptych_image.unpack.worker.errors import limit, malformed, show
from triptych_image.unpack.worker.limits import DEPTH_MAX, PATH_MAX

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
META = b".wh..wh."
"""Begins the names of AUFS's own records, which are no part of an image."""


def in_meta(path: bytes) -> bool:
    """Whether a path lies in a directory of AUFS's own records."""
    return path.startswith(META) or b"/" + META in path


def clean(name: bytes) -> bytes:
    """A member name as a relative path, `b""` for the root.

    A leading slash is dropped as by every other implementation; `..` is refused, whatever it leads to.

    :raises Refused: for a name that is too long, too deep or has a `..` component.
    """
    if len(name) > PATH_MAX:
        raise limit(f"{show(name)}: the name is longer than {PATH_MAX} bytes")
    parts = name.split(b"/")
    if b".." in parts:
        raise malformed(f"{show(name)}: a name with .. leads out of the layer")
    kept = [part for part in parts if part and part != b"."]
    if len(kept) > DEPTH_MAX:
        raise limit(f"{show(name)}: more than {DEPTH_MAX} directories deep")
    return b"/".join(kept)
