"""Starting plugins, and listening for those that come by themselves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from triptych_service.tasks import Tasks

from triptych_runtime.nri.listener import Listener, listen
from triptych_runtime.nri.settings import NriSettings

if TYPE_CHECKING:
    from triptych_runtime.nri.interface import Nri

log = logging.getLogger(__name__)

Load = Callable[[], Awaitable["Nri"]]


async def start(load: Load, settings: NriSettings, mark: str, tasks: Tasks) -> None:
    """Start the plugins that are installed, and listen for others once these are there.

    No pod can be made before it returns, so that no container misses an installed plugin; one that hangs is
    given up in time.

    :param load: gives what serves plugins, once there is one.
    :param mark: see `installed.run`.
    """
    if not settings.enabled:
        return
    if settings.validates:
        await load()
    if await asyncio.to_thread(os.path.isdir, settings.plugin_dir):
        await _start_installed(load, settings, mark, tasks)
    if settings.socket:
        await _listen(load, Path(settings.socket), tasks)


async def _start_installed(load: Load, settings: NriSettings, mark: str, tasks: Tasks) -> None:
    from triptych_runtime.nri import installed

    await installed.end_leftovers(mark)
    ready = []
    for plugin in await asyncio.to_thread(installed.find, settings):
        taken = asyncio.Event()
        ready.append(taken.wait())
        running = installed.run(plugin, (await load()).plugins, mark, taken)
        tasks.create_task(running, name=f"NRI plugin {plugin.identity}")
    await asyncio.gather(*ready)


async def _listen(load: Load, path: Path, tasks: Tasks) -> None:
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
    tasks.create_task(Listener(socket, path, load, tasks).run(), name="NRI socket")
