"""Removing one thing that nobody owns."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from triptych_errors import TriptychError

log = logging.getLogger(__name__)


async def remove_orphan(kind: str, identity: str, *steps: Awaitable[object]) -> bool:
    """Take every step, whatever becomes of the others; failures are logged. Whether all succeeded."""
    log.info("removing an orphan", extra={"kind": kind, "id": identity})
    gone = True
    for step in steps:
        try:
            await step
        except (TriptychError, OSError) as error:
            gone = False
            extra = {"kind": kind, "id": identity, "error": str(error)}
            log.warning("an orphan could not be removed", extra=extra)
    return gone
