"""Background work: freeing what was removed, dropping what got too old to go on with."""

from __future__ import annotations

import asyncio
import logging

from triptych_image.app import App

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 60.0
_GATHER_SECONDS = 0.2


async def clean(app: App) -> None:
    """Free the trash when there is some, and look for old leftovers once a minute; never ends."""
    app.store.free_soon()  # what an earlier run left
    while True:
        try:
            async with asyncio.timeout(_PERIOD_SECONDS):
                await app.store.trash.wait()
        except TimeoutError:
            pass
        else:
            # Several removals in a row are freed together, behind their answers.
            await asyncio.sleep(_GATHER_SECONDS)
        app.store.trash.clear()
        try:
            count, size = await app.store.collect()
            if count:
                log.info("collected layers that no image has", extra={"layers": count, "bytes": size})
            if size := await app.store.collect_partials():
                log.info("collected parts of layers that no pull went on from", extra={"bytes": size})
            await app.store.empty_trash()
        except Exception:
            log.exception("cleaning failed")
