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

from triptych_runtime.errors import CalledOff, RefusedByPlugin
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
        self._coming = 0
        self._given_up = False
        """Whether some were left by the daemon, at its end, and not the other way round."""
        self.lock = asyncio.Lock()
        """Held while an event is told, and while a plugin comes: so none misses anything."""

    def __len__(self) -> int:
        return len(self._connected)

    def __bool__(self) -> bool:
        """Whether somebody is to be told: also one that is just being taken in, for which `lock` waits, and
        those that were given up, without which `relay` lets nothing be made."""
        return bool(self._connected or self._coming or self._given_up)

    def wants(self, event: Event) -> bool:
        """Whether somebody is to be told of this event; as for all of them, the unknown counts."""
        unknown = bool(self._coming or self._given_up)
        return unknown or any(plugin.wants(event) for plugin in self._connected)

    @property
    def identities(self) -> list[Identity]:
        """Of those that are there; not of one that was dropped a moment ago."""
        return [plugin.identity for plugin in self._connected if not plugin.closed]

    async def admit(
        self, connection: socket.socket, identity: Identity | None = None, config: str = ""
    ) -> Plugin | None:
        """Take a plugin in; None when it does not keep to the protocol, which is logged."""
        plugin = Plugin(connection, self._settings, self._asked, identity, config)
        try:
            await plugin.start()
            pods, containers, updates = await self._take(plugin)
        except Exception as error:
            expected = isinstance(error, TriptychError | OSError)  # TimeoutError is one
            log.warning(
                "an NRI plugin was not taken in",
                extra={
                    "plugin": str(plugin.identity),
                    "error": str(error) or "it did not register in time",
                },
                exc_info=None if expected else error,
            )
            await _close(plugin)
            return None
        except BaseException:
            await _close(plugin)
            raise
        extra = {"plugin": str(plugin.identity), "pods": pods, "containers": containers}
        log.info("an NRI plugin is connected", extra=extra)
        await self._update(updates)
        return plugin

    async def _take(self, plugin: Plugin) -> tuple[int, int, Sequence[nri.ContainerUpdate]]:
        """Tell it what there is, from when on it is told what comes: how much it was, and what it wants."""
        self._coming += 1
        try:
            async with self.lock:
                pods, containers = await self._inventory()
                updates = await plugin.synchronize(pods, containers)
                self._connected.append(plugin)
                self._connected.sort(key=lambda each: each.identity.index)
        finally:
            self._coming -= 1
        return len(pods), len(containers), updates

    async def serve(self, plugin: Plugin) -> None:
        """Wait until a plugin that was taken in has gone."""
        try:
            await plugin.wait_closed()
        except asyncio.CancelledError:
            self._given_up = True
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._connected.remove(plugin)
            await _close(plugin)
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
        :raises RefusedByPlugin: what a plugin says against it, or `answered` of its answer.
        :raises CalledOff: the daemon ends, and there may be plugins that were not asked.
        """
        for plugin in list(self._connected):
            if plugin.closed or not plugin.wants(event):
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
        if heed and self._given_up:
            raise CalledOff(f"{METHODS[event].name}: the daemon shuts down, and NRI plugins cannot be asked")

    async def judge(self, request: nri.ValidateContainerAdjustmentRequest) -> str:
        """Why a plugin refuses an adjustment, "" when none does. The caller holds `lock`."""
        for plugin in list(self._connected):
            if plugin.validates:
                try:
                    answer = await self._tell(plugin, nri.VALIDATE_CONTAINER_ADJUSTMENT, request)
                except TriptychError as error:
                    return f"validator {plugin.identity} failed: {error}"
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


async def _close(plugin: Plugin) -> None:
    try:
        await shielded(plugin.close(), _CLOSE_SECONDS)
    except TimeoutError:
        log.warning("the connection of an NRI plugin does not end", extra={"plugin": str(plugin.identity)})
