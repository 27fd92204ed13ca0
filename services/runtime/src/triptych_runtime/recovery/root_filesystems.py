"""Root filesystems that the image daemon keeps for containers that this daemon has no record of.

A create that is undone while the image daemon is away or does not answer cannot take its part back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from triptych_errors import TriptychError

from triptych_runtime.node import Node
from triptych_runtime.recovery.removal import remove_orphan

log = logging.getLogger(__name__)

#: Seconds between two looks when nothing was missed.
_PERIOD = 600.0
#: Seconds between two looks otherwise: what was under way then has come to its end.
_PAUSE = 5.0


async def remove_root_filesystems(node: Node) -> bool:
    """Remove what no record owns; whether it is all gone.

    A container has its record before its root filesystem, so what is listed first and has no record then
    is an orphan, whatever goes on meanwhile.
    """
    try:
        keys = await node.images.keys()
    except TriptychError as error:
        log.info("the image daemon was not asked for orphans", extra={"error": str(error)})
        return False
    gone = True
    for owner in {key.partition("/")[0] for key in keys}:
        if not node.owns(owner):
            removal = (node.images.remove(owner), node.images.remove(owner, prefix=True))
            gone = await remove_orphan("root filesystem", owner, *removal) and gone
    return gone


async def keep_removing_root_filesystems(node: Node) -> None:
    """For ever: look soon after the image daemon was missed, and now and then in any case."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PERIOD):
                await node.images.missed.wait()
        await asyncio.sleep(_PAUSE)
        node.images.missed.clear()
        if not await remove_root_filesystems(node):
            node.images.missed.set()
