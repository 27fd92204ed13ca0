"""The plugins that are connected, in the order in which they are asked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf.message import Message
from nri.v1alpha1 import nri_pb2 as nri
from triptych_errors import TriptychError
from triptych_linux.process import shielded

from triptych_runtime.errors import RefusedByPlugin
from triptych_runtime.nri.events import METHODS, Event
from triptych_runtime.nri.plugin import Identity, Plugin
from triptych_runtime.nri.settings import NriSettings

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0

Inventory = Callable[[], Awaitable[tuple[Sequence[nri.PodSandbox], Sequence[nri.Container]]]]
Told = Callable[[str, str, str, float], None]
Updater = Callable[[Sequence[nri.ContainerUpdate]], Awaitable[list[nri.ContainerUpdate]]]


class Plugins:
    """All plugins. One event is told at a time, to one plugin after the other.

    :param inventory: gives all pods and containers, for a plugin that comes.
    :param update: changes containers, and gives those updates that failed.
    :param told: gets of each call the plugin, the event, the outcome and the seconds that it took.
    """

    def __init__(
        self, settings: Callable[[], NriSettings], inventory: Inventory, update: Updater, told: Told
    ) -> None:
        self._settings = settings
        self._inventory = inventory
        self._update = update
        self._told = told
        self._connected: list[Plugin] = []
        self.lock = asyncio.Lock()
        """Held while an event is told, and while a plugin comes: so none misses anything."""

    def __len__(self) -> int:
        return len(self._connected)

    @property
    def identities(self) -> list[Identity]:
        return [plugin.identity for plugin in self._connected]

    async def admit(
        self, connection: socket.socket, identity: Identity | None = None, config: str = ""
    ) -> Plugin | None:
        """Take a plugin in; None when it does not keep to the protocol, which is logged."""
        plugin = Plugin(connection, self._settings, self._asked, identity, config)
        try:
            await plugin.start()
            async with self.lock:
                pods, containers = await self._inventory()
                updates = await plugin.synchronize(pods, containers)
                self._connected.append(plugin)
                self._connected.sort(key=lambda each: each.identity.index)
        except (TriptychError, OSError) as error:  # TimeoutError is one
            why = str(error) or "it did not register in time"
            log.warning(
                "an NRI plugin was not taken in", extra={"plugin": str(plugin.identity), "error": why}
            )
            await shielded(plugin.close(), _CLOSE_SECONDS)
            return None
        except BaseException:
            await shielded(plugin.close(), _CLOSE_SECONDS)
            raise
        extra = {"plugin": str(plugin.identity), "pods": len(pods), "containers": len(containers)}
        log.info("an NRI plugin is connected", extra=extra)
        await self._update(updates)
        return plugin

    async def serve(self, plugin: Plugin) -> None:
        """Wait until a plugin that was taken in has gone."""
        try:
            await plugin.wait_closed()
        finally:
            with contextlib.suppress(ValueError):
                self._connected.remove(plugin)
            await shielded(plugin.close(), _CLOSE_SECONDS)
        log.info("an NRI plugin has gone", extra={"plugin": str(plugin.identity)})

    async def _asked(self, request: nri.UpdateContainersRequest) -> nri.UpdateContainersResponse:
        return nri.UpdateContainersResponse(failed=await self._update(request.update))

    async def relay(
        self,
        event: Event,
        request: Message,
        answered: Callable[[Any, str], None] | None = None,
        *,
        heed: bool = True,
    ) -> None:
        """Tell the plugins that want it of an event. The caller holds `lock`.

        :param answered: gets each answer and its plugin's name, and may change the request for the next one.
        :param heed: a plugin may be against it; else it is done already, and what they say is logged.
        :raises TriptychError: what a plugin says against it, or `answered` of its answer.
        """
        for plugin in list(self._connected):
            if not plugin.wants(event):
                continue
            try:
                answer = await self._tell(plugin, event, request)
                if answer is not None and answered is not None:
                    answered(answer, str(plugin.identity))
            except TriptychError as error:
                if heed:
                    raise RefusedByPlugin(f"NRI plugin {plugin.identity}: {error}") from error
                extra = {"plugin": str(plugin.identity), "event": METHODS[event].name, "error": str(error)}
                log.warning("an NRI plugin could not take what it was told", extra=extra)

    async def judge(self, request: nri.ValidateContainerAdjustmentRequest) -> str:
        """Why a plugin refuses an adjustment, "" when none does. The caller holds `lock`."""
        for plugin in list(self._connected):
            if plugin.validates:
                answer = await self._tell(plugin, nri.VALIDATE_CONTAINER_ADJUSTMENT, request)
                if answer is None:
                    return f"validator {plugin.identity} gave no answer"
                if answer.reject:
                    return f"validator {plugin.identity}: {answer.reason or 'no reason given'}"
        return ""

    async def _tell(self, plugin: Plugin, event: Event, request: Message) -> Any:
        started, outcome = time.monotonic(), "refused"
        try:
            answer = await plugin.tell(event, request)
            outcome = "dropped" if answer is None else "ok"
            return answer
        finally:
            name, seconds = plugin.identity.name, time.monotonic() - started
            self._told(name, METHODS[event].name, outcome, seconds)
