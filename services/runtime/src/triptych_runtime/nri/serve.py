"""Starting plugins, and listening for those that come by themselves."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from triptych_service.tasks import Tasks

from triptych_runtime.nri import installed
from triptych_runtime.nri.interface import Nri
from triptych_runtime.nri.listener import Listener, listen
from triptych_runtime.nri.settings import NriSettings

log = logging.getLogger(__name__)


async def start(nri: Nri, settings: NriSettings, mark: str, tasks: Tasks) -> None:
    """Start the plugins that are installed, and listen for others once these are there.

    No pod can be made before it returns, so that no container misses an installed plugin; one that hangs is
    given up in time.

    :param mark: see `installed.run`.
    """
    if not settings.enabled:
        return
    ready = []
    await installed.end_leftovers(settings, mark)
    for plugin in await asyncio.to_thread(installed.find, settings):
        taken = asyncio.Event()
        ready.append(taken.wait())
        tasks.create_task(
            installed.run(plugin, nri.plugins, mark, taken), name=f"NRI plugin {plugin.identity}"
        )
    await asyncio.gather(*ready)
    if settings.socket:
        await _listen(nri, Path(settings.socket), tasks)


async def _listen(nri: Nri, path: Path, tasks: Tasks) -> None:
    try:
        socket = await asyncio.to_thread(listen, path)
    except OSError as error:
        log.warning("no NRI plugin can connect", extra={"socket": str(path), "error": str(error)})
        return
    if socket is None:
        log.warning(
            "another runtime serves NRI plugins here: they are left to it", extra={"socket": str(path)}
        )
        return
    tasks.create_task(Listener(socket, path, nri.plugins, tasks).run(), name="NRI socket")
