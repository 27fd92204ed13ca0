"""One plugin: its connection, who it is, and what it wants to be told."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from nri.v1alpha1 import nri_pb2 as nri
from triptych_errors import Code, InvalidArgument
from triptych_ttrpc import (
    CallTimeout,
    ConnectionClosed,
    Handlers,
    Peer,
    ProtocolError,
    RemoteError,
    TooLarge,
)

from triptych_runtime import __version__
from triptych_runtime.nri.events import ALL, METHODS, RUNTIME_SERVICE, SERVICE, Event
from triptych_runtime.nri.settings import NriSettings

log = logging.getLogger(__name__)

VERSION = "v0.12.0"
"""Of NRI, as plugins see it."""
RUNTIME_NAME = "triptych"
_NAME = re.compile(r"[A-Za-z0-9_.+-]+")
_INDEX = re.compile(r"[0-9]{2}")
_LEAST = 8
"""Pods and containers in one message below which splitting it further is given up."""

Update = Callable[[nri.UpdateContainersRequest], Coroutine[object, object, nri.UpdateContainersResponse]]


@dataclass(frozen=True, slots=True)
class Identity:
    """A plugin's index, two digits, and its name."""

    index: str
    name: str

    def __str__(self) -> str:
        return f"{self.index}-{self.name}"


def identify(index: str, name: str) -> Identity:
    """:raises InvalidArgument: when it is not two digits and a name of letters, digits and `_.+-`."""
    if not _INDEX.fullmatch(index):
        raise InvalidArgument(f"NRI plugin {name!r}: index {index!r} is not two digits")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"NRI plugin: name {name!r} has other than letters, digits and _.+-")
    return Identity(index, name)


class Plugin:
    """A connected plugin.

    :param connection: a connected stream socket.
    :param update: changes containers when the plugin asks for it; cancelled, and to end at once then, when
        the plugin waits no longer or has gone.
    :param identity: of one that was launched; others tell theirs when they register.
    :ivar identity: known once it has registered.
    """

    def __init__(
        self,
        connection: socket.socket,
        settings: Callable[[], NriSettings],
        update: Update,
        identity: Identity | None = None,
        config: str = "",
    ) -> None:
        self.identity = identity or Identity("??", "plugin")
        self._given = identity
        self._config = config
        self._settings = settings
        self._update = update
        self._events = 0
        self._peer = Peer(connection)
        self._registered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def closed(self) -> bool:
        return self._peer.closed.is_set()

    @property
    def validates(self) -> bool:
        """Whether it judges adjustments."""
        return self.wants(nri.VALIDATE_CONTAINER_ADJUSTMENT)

    def wants(self, event: Event) -> bool:
        return bool(self._events >> (event - 1) & 1)

    async def start(self) -> None:
        """Let it register, and configure it.

        :raises InvalidArgument: for a name or an event that cannot be.
        :raises CallTimeout, ConnectionClosed, ProtocolError, RemoteError: when it does not answer well.
        :raises TimeoutError: when it does not register in time.
        """
        handlers: Handlers = {
            "RegisterPlugin": (nri.RegisterPluginRequest, self._register),
            "UpdateContainers": (nri.UpdateContainersRequest, self._update),
        }
        self._peer.serve(RUNTIME_SERVICE, handlers)
        await self._peer.start()
        settings = self._settings()
        async with asyncio.timeout(settings.registration_timeout):
            closing = asyncio.ensure_future(self._peer.closed.wait())
            try:
                await asyncio.wait((self._registered, closing), return_when=asyncio.FIRST_COMPLETED)
            finally:
                closing.cancel()
        if not self._registered.done():
            raise InvalidArgument("an NRI plugin left before it registered")
        self._registered.result()
        request = nri.ConfigureRequest(
            config=self._config,
            runtime_name=RUNTIME_NAME,
            runtime_version=__version__,
            registration_timeout=round(settings.registration_timeout * 1e3),
            request_timeout=round(settings.request_timeout * 1e3),
            NRI_version=VERSION,
        )
        answer = await self._call("Configure", request, nri.ConfigureResponse)
        if answer.events & ~ALL:
            raise InvalidArgument(
                f"NRI plugin {self.identity} asks for events that are not: {answer.events:#x}"
            )
        self._events = answer.events or ALL

    async def _register(self, request: nri.RegisterPluginRequest) -> nri.Empty:
        if self._registered.done():
            raise InvalidArgument(f"NRI plugin {self.identity} has registered already")
        try:
            if self._given is None:
                self.identity = identify(request.plugin_idx, request.plugin_name)
        except InvalidArgument as error:
            self._registered.set_exception(error)
            raise
        self._registered.set_result(None)
        return nri.Empty()

    async def synchronize(
        self, pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]
    ) -> Sequence[nri.ContainerUpdate]:
        """Tell it of all that there is; gives the updates that it wants.

        :raises TriptychError: when it does not answer well, or cannot take as much.
        """
        size = len(pods) + len(containers)
        while True:
            some = pods[:size]
            others = containers[: size - len(some)]
            more = len(some) < len(pods) or len(others) < len(containers)
            request = nri.SynchronizeRequest(pods=some, containers=others, more=more)
            try:
                answer = await self._call(
                    "Synchronize", request, nri.SynchronizeResponse, self._settings().registration_timeout
                )
            except TooLarge as error:
                if size <= _LEAST:
                    raise
                size = max(int(size * min(error.maximum / error.length, 0.9)), _LEAST)
                continue
            if not more:
                updates: Sequence[nri.ContainerUpdate] = answer.update
                return updates
            if answer.update or not answer.more:
                raise InvalidArgument(
                    f"NRI plugin {self.identity} cannot take what there is in several parts"
                )
            pods, containers = pods[len(some) :], containers[len(others) :]

    async def tell(self, event: Event, request: Message) -> Any:
        """Tell it of an event that it wants, and give its answer; None when it was dropped for its silence.

        :raises RemoteError: what it says against it. :raises TooLarge: it cannot be told.
        """
        method = METHODS[event]
        try:
            return await self._told(event, method.name, request, method.response, method.as_change)
        except (CallTimeout, ConnectionClosed, ProtocolError) as error:
            why = "gave no answer in time" if isinstance(error, CallTimeout) else str(error)
            extra = {"plugin": str(self.identity), "event": method.name, "error": why}
            log.warning("an NRI plugin is dropped", extra=extra)
            await self.close()
            return None

    async def _told(
        self, event: Event, name: str, request: Any, response: type[Message], as_change: bool
    ) -> Any:
        try:
            return await self._call(name, request, response)
        except RemoteError as error:
            if error.code is not Code.UNIMPLEMENTED or not as_change:
                raise
        change = nri.StateChangeEvent(event=event, pod=request.pod)
        if "container" in request.DESCRIPTOR.fields_by_name:
            change.container.CopyFrom(request.container)
        await self._call("StateChange", change, nri.Empty)
        return response()

    async def _call(
        self, method: str, request: Message, response: type[Any], timeout: float | None = None
    ) -> Any:
        timeout = timeout or self._settings().request_timeout
        return await self._peer.call(SERVICE, method, request, response, timeout=timeout)

    async def wait_closed(self) -> None:
        """Wait until its connection has ended."""
        await self._peer.closed.wait()

    async def close(self) -> None:
        """End the connection."""
        await self._peer.close()
