"""The socket on which plugins connect that run by themselves, in pods as a rule."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from triptych_service.tasks import Tasks

if TYPE_CHECKING:
    from triptych_runtime.nri.interface import Nri

log = logging.getLogger(__name__)

_BACKLOG = 16
_AT_ONCE = 64
"""Connections at a time; a node has a handful of plugins."""
_REST = 1.0
"""Seconds without taking any, after the process ran out of descriptors."""


def listen(path: Path) -> socket.socket | None:
    """The listening socket, open to root only; None when another process listens there.

    :raises OSError: when it cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return None  # it listens, and is slow to take connections
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
        else:
            return None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class Listener:
    """Takes connections of plugins.

    :param load: gives what serves them.
    """

    def __init__(
        self, listener: socket.socket, path: Path, load: Callable[[], Awaitable[Nri]], tasks: Tasks
    ) -> None:
        self._listener = listener
        self._path = path
        self._identity = os.stat(path)
        self._load = load
        self._tasks = tasks
        self._served: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Take connections until it is cancelled."""
        try:
            while True:
                await self._take()
        finally:
            self._close()

    async def _take(self) -> None:
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        except OSError as error:
            log.warning("no NRI plugin can connect", extra={"error": str(error)})
            await asyncio.sleep(_REST)
            return
        if len(self._served) >= _AT_ONCE:
            connection.close()
            return
        task = self._tasks.create_task(self._serve(connection), name="NRI plugin")
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def _serve(self, connection: socket.socket) -> None:
        plugins = (await self._load()).plugins
        plugin = await plugins.admit(connection)
        if plugin is not None:
            await plugins.serve(plugin)

    def _close(self) -> None:
        """Take no more; the socket goes, unless it is another's by now."""
        self._listener.close()
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self._path), self._identity):
                self._path.unlink()
