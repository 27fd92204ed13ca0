"""Plugins that are installed on the node: found in a directory, started by this daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from triptych_errors import TriptychError
from triptych_linux import process

from triptych_runtime.nri.plugin import Identity, identify
from triptych_runtime.nri.plugins import Plugins
from triptych_runtime.nri.settings import NriSettings

log = logging.getLogger(__name__)

_EXECUTABLE = 0o111
_STDERR = 2


@dataclass(frozen=True, slots=True)
class Installed:
    """A plugin to start, with its configuration."""

    path: Path
    identity: Identity
    config: str


def find(settings: NriSettings) -> list[Installed]:
    """The plugins of the node, by name. Files whose names or configurations cannot be taken are logged."""
    found = []
    try:
        entries = sorted(os.scandir(settings.plugin_dir), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    for entry in entries:
        if not entry.is_file() or not entry.stat().st_mode & _EXECUTABLE:
            continue
        index, _, name = entry.name.partition("-")
        try:
            identity = identify(index, name)
            found.append(Installed(Path(entry.path), identity, _config(settings, identity)))
        except (TriptychError, OSError, UnicodeDecodeError) as error:
            log.warning("an NRI plugin cannot be started", extra={"file": entry.path, "error": str(error)})
    return found


def _config(settings: NriSettings, identity: Identity) -> str:
    for name in (f"{identity}.conf", f"{identity.name}.conf"):
        try:
            return Path(settings.plugin_config_dir, name).read_text()
        except FileNotFoundError:
            continue
    return ""


async def run(plugin: Installed, plugins: Plugins, taken: asyncio.Event) -> None:
    """Start a plugin, and stay with it until it ends; it is ended with this task.

    :param taken: set when it was taken in, or cannot be.
    """
    extra = {"plugin": str(plugin.identity), "file": str(plugin.path)}
    try:
        ours, theirs = socket.socketpair()
        with theirs:
            env = {
                "NRI_PLUGIN_NAME": plugin.identity.name,
                "NRI_PLUGIN_IDX": plugin.identity.index,
                "NRI_PLUGIN_SOCKET": str(theirs.fileno()),
            }
            try:
                child = await process.spawn(
                    [plugin.path],
                    step=f"start NRI plugin {plugin.identity}",
                    env=env,
                    pass_fds=(theirs.fileno(),),
                    stderr=_STDERR,
                )
            except (TriptychError, OSError) as error:
                ours.close()
                log.warning("an NRI plugin cannot be started", extra=extra | {"error": str(error)})
                return
        try:
            connected = await plugins.admit(ours, plugin.identity, plugin.config)
            taken.set()
            if connected is not None:
                await plugins.serve(connected)
        finally:
            await child.close()
    finally:
        taken.set()
