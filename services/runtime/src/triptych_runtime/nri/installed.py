"""Plugins that are installed on the node: found in a directory, started by this daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from triptych_errors import TriptychError
from triptych_linux import marked, process

from triptych_runtime.nri.plugin import Identity, identify
from triptych_runtime.nri.plugins import Plugins
from triptych_runtime.nri.settings import NriSettings

log = logging.getLogger(__name__)

MARK = "TRIPTYCH_NRI"
"""Variable of their environment: the state directory of the daemon that started them."""
_EXECUTABLE = 0o111
_STDERR = 2
_LEFTOVER_SECONDS = 5.0


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
    except OSError as error:
        log.warning(
            "no NRI plugin can be started", extra={"directory": settings.plugin_dir, "error": str(error)}
        )
        return []
    for entry in entries:
        if not _executable(entry):
            continue
        index, _, name = entry.name.partition("-")
        try:
            identity = identify(index, name)
            found.append(Installed(Path(entry.path), identity, _config(settings, identity)))
        except (TriptychError, OSError, UnicodeDecodeError) as error:
            log.warning("an NRI plugin cannot be started", extra={"file": entry.path, "error": str(error)})
    return found


def _executable(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() and bool(entry.stat().st_mode & _EXECUTABLE)
    except OSError:  # gone, or out of reach
        return False


def _config(settings: NriSettings, identity: Identity) -> str:
    for name in (f"{identity}.conf", f"{identity.name}.conf"):
        try:
            return Path(settings.plugin_config_dir, name).read_text()
        except FileNotFoundError:
            continue
    return ""


async def end_leftovers(mark: str) -> None:
    """End plugins that a daemon left which was killed.

    :param mark: what they were started with.
    """
    try:
        ended = await marked.kill(MARK, (mark,), _may_be_plugin, deadline=_LEFTOVER_SECONDS)
    except TimeoutError:
        log.warning("an NRI plugin of a former run does not end")
        return
    for process_ in ended:
        log.info("ended an NRI plugin of a former run", extra={"pid": process_.pid})


def _may_be_plugin(pid: int) -> bool:
    """Whether a process is in a group made in a session of somebody else, as plugins are started."""
    return os.getpgid(pid) != os.getsid(pid)


async def run(plugin: Installed, plugins: Plugins, mark: str, taken: asyncio.Event) -> None:
    """Start a plugin, and stay with it until it ends; it is ended with this task.

    :param mark: tells the plugins of this daemon from those of others (`end_leftovers`).
    :param taken: set when it was taken in, or cannot be.
    """
    try:
        await _run(plugin, plugins, mark, taken)
    except (TriptychError, OSError) as error:
        extra = {"plugin": str(plugin.identity), "file": str(plugin.path), "error": str(error)}
        log.warning("an NRI plugin cannot be started or ended", extra=extra)
    finally:
        taken.set()


async def _run(plugin: Installed, plugins: Plugins, mark: str, taken: asyncio.Event) -> None:
    ours, theirs = socket.socketpair()
    try:
        child = await _spawn(plugin, theirs, mark)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    try:
        connected = await plugins.admit(ours, plugin.identity, plugin.config)
        taken.set()
        if connected is not None:
            await plugins.serve(connected)
    finally:
        await child.close()


async def _spawn(plugin: Installed, connection: socket.socket, mark: str) -> process.Child:
    return await process.spawn(
        [plugin.path],
        step=f"start NRI plugin {plugin.identity}",
        env={
            "NRI_PLUGIN_NAME": plugin.identity.name,
            "NRI_PLUGIN_IDX": plugin.identity.index,
            "NRI_PLUGIN_SOCKET": str(connection.fileno()),
            MARK: mark,
        },
        pass_fds=(connection.fileno(),),
        stderr=_STDERR,
    )
