"""Named points at which a test kills the daemon.

`TRIPTYCH_FAULT=name` ends the process there as kill -9 does, `TRIPTYCH_FAULT=name:3` at the third pass.
Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os

_NAME, _, _COUNT = os.environ.get("TRIPTYCH_FAULT", "").partition(":")
_left = int(_COUNT or 1)


def point(name: str) -> None:
    """End the process here if the environment asks for it."""
    global _left
    if name != _NAME:
        return
    _left -= 1
    if _left <= 0:
        os._exit(137)
