"""A daemon as its own code sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc.aio

from triptych_service.health import Health
from triptych_service.interceptors import ServerInterceptor
from triptych_service.metrics import Metrics
from triptych_service.settings import ServiceSettings
from triptych_service.tasks import Tasks

S = TypeVar("S", bound=ServiceSettings)
ReloadCallback = Callable[[S], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that a daemon cannot work with.

    :param key: dotted, by which the file is found that set it.
    :param text: what was expected, and what there is.
    :param source: where the value comes from when that is no file.
    """

    key: str
    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Definition(Generic[S]):
    """What makes one daemon different from the others.

    :param name: `triptych-image`; the configuration file is named after the part behind the dash.
    :param settings: its settings class.
    :param start: an async context manager: up to its `yield` it adds servicers and opens stores, after it
        closes them, in a `finally`, as a background task that fails throws at the `yield`. RPCs are served
        once it has yielded; slow recovery belongs into `daemon.tasks`.
    :param socket_default: the socket path unless the settings name one.
    :param check: what `start` would refuse in well typed settings, as far as it takes no socket to see;
        asked before a start, on a reload and by `--check-config`. May block on files.
    """

    name: str
    version: str
    settings: type[S]
    start: Callable[[Daemon[S]], AbstractAsyncContextManager[None]]
    socket_default: str
    check: Callable[[S], Iterable[Problem]] = lambda settings: ()

    @property
    def short_name(self) -> str:
        return self.name.removeprefix("triptych-")


class Daemon(Generic[S]):
    """The running daemon that `start` gets.

    :ivar settings: as configured now; replaced by a reload.
    :ivar socket: the path that gRPC is served on.
    :ivar server: add servicers to it before `start` yields.
    :ivar tasks: background tasks; ended before the code after `yield` runs.
    :ivar listen_fds: sockets passed by the service manager, by name; `grpc` is taken by the bootstrap.
    :ivar stopping: set when the daemon begins to stop.
    :ivar release_addresses: after `yield`: give the socket's path and the metrics' address up before the
        process ends, so that a successor may serve them while this one finishes long work.
    :ivar metrics: declare instruments here.
    :ivar health: to announce that a service stopped working or works again.
    """

    def __init__(
        self,
        definition: Definition[S],
        settings: S,
        server: grpc.aio.Server,
        tasks: Tasks,
        health: Health,
        interceptor: ServerInterceptor,
        metrics: Metrics,
        listen_fds: Mapping[str, int],
        stopping: asyncio.Event,
        release_addresses: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = definition.name
        self.version = definition.version
        self.settings = settings
        self.socket = settings.socket or definition.socket_default
        self.server = server
        self.tasks = tasks
        self.listen_fds = dict(listen_fds)
        self.stopping = stopping
        self.metrics = metrics
        self.health = health
        self.release_addresses = release_addresses
        self.service_names: list[str] = []
        self._interceptor = interceptor
        self._reload_callbacks: list[ReloadCallback[S]] = []

    def add_service_name(self, name: str, *, endless: tuple[str, ...] = ()) -> None:
        """Announce a service (`runtime.v1.ImageService`) in reflection and health, as serving.

        :param endless: its methods that stream until the client leaves; a stop ends them with UNAVAILABLE
            instead of waiting for them.
        """
        self.service_names.append(name)
        self.health.add(name)
        self._interceptor.endless.update(f"/{name}/{method}" for method in endless)

    def on_reload(self, callback: ReloadCallback[S]) -> None:
        """Call back with the settings on every reload, as files they name may have changed too.

        An error is logged, not fatal.
        """
        self._reload_callbacks.append(callback)

    async def reloaded(self, settings: S) -> list[Exception]:
        """Take new settings and run the callbacks; gives the error of each that failed."""
        self.settings = settings
        failed: list[Exception] = []
        for callback in self._reload_callbacks:
            try:
                await callback(settings)
            except Exception as error:
                failed.append(error)
        return failed

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does."""
        self.stopping.set()
