"""The life of a daemon, from its command line to its exit status."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Generic, NoReturn, TypeVar

import grpc.aio
from triptych_errors import TriptychError

from triptych_service import adoption, commandline, health, logs, memory, sockets, telemetry
from triptych_service.daemon import Daemon, Definition
from triptych_service.errors import ConfigError
from triptych_service.interceptors import ServerInterceptor
from triptych_service.loop import loop_metrics
from triptych_service.metrics import Metrics
from triptych_service.notify import Notifier
from triptych_service.reload import changes, merge, report
from triptych_service.settings import LogLevel, ServiceSettings
from triptych_service.tasks import Tasks

log = logging.getLogger(__name__)

S = TypeVar("S", bound=ServiceSettings)

EXIT_FAILED = 1
EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: systemd's RestartPreventExitStatus= can tell a mistake from a crash."""

END_SECONDS = 25.0
"""What a stop may take after `grace_seconds`: what a daemon ends itself (19 s for attempts and threads in
the runtime daemon) and the last of telemetry. With the default grace this is the units' TimeoutStopSec=."""


def run(definition: Definition[S]) -> NoReturn:
    """Run a daemon as its process's main program; exits 0 after a stop, 78 for a wrong configuration."""
    sys.exit(main(definition, sys.argv[1:]))


def main(definition: Definition[S], argv: list[str]) -> int:
    """`run` without the exit: gives the exit status."""
    options = commandline.parse(definition, argv)
    try:
        if commandline.answer(definition, options):
            return 0
        loaded = commandline.load_config(definition, options)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    memory.limit_arenas()
    logs.setup(definition.name, loaded.settings.log)
    runner = _Runner(definition, loaded.settings, options)
    try:
        asyncio.run(runner.run())
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, TriptychError):
                log.critical("cannot go on: %s", cause)
            else:
                log.critical("unexpected error, cannot go on", exc_info=cause)
        mistaken = any(isinstance(cause, ConfigError) for cause in causes)
        return EXIT_CONFIG if mistaken else EXIT_FAILED
    return 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What went wrong, out of the groups that a task group wraps it in."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error


class _Runner(Generic[S]):
    """Holds what a running daemon needs from its start to its end."""

    def __init__(self, definition: Definition[S], settings: S, options: commandline.Options) -> None:
        self._definition = definition
        self._settings = settings
        self._options = options
        self._notify = Notifier()
        self._stopping = asyncio.Event()
        self._reload_wanted = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop.

        :raises TriptychError: the daemon cannot start.
        """
        settings, definition = self._settings, self._definition
        self._apply_log_level(settings)
        socket = sockets.SocketPath(settings.socket or definition.socket_default)
        passed = sockets.listen_fds()
        activated = adoption.choose(passed, socket.path)
        descriptor = passed.pop(activated) if activated else None
        socket.claim(activated=activated is not None)
        addresses = ExitStack()
        addresses.callback(socket.release)
        try:
            interceptor = ServerInterceptor(self._stopping)
            interceptor.endless.update(health.ENDLESS)
            server, metrics, statuses = _server(settings, interceptor), Metrics(), health.Health()
            async with (
                Tasks() as tasks,
                _telemetry(definition, settings, metrics, tasks, interceptor, addresses) as turned_on,
            ):
                daemon = Daemon(
                    definition,
                    settings,
                    server,
                    tasks,
                    statuses,
                    interceptor,
                    metrics,
                    passed,
                    self._stopping,
                    addresses.close,
                )
                daemon.on_reload(_retrace(definition, settings, turned_on))
                health.add_to_server(server, statuses, daemon.service_names, definition.version)
                self._handle_signals(asyncio.get_running_loop())
                tasks.create_task(self._reloads(daemon), name="reloads")
                tasks.create_task(memory.keep_trimmed(), name="memory")
                if self._notify.watchdog_seconds:
                    tasks.create_task(self._watchdog(self._notify.watchdog_seconds), name="watchdog")
                try:
                    await self._serve(daemon, socket, descriptor)
                finally:
                    await tasks.end()
        finally:
            addresses.close()

    async def _serve(self, daemon: Daemon[S], socket: sockets.SocketPath, descriptor: int | None) -> None:
        async with self._definition.start(daemon):
            if descriptor is None:
                socket.bind(daemon.server.add_insecure_port)
            else:
                socket.bind_passed(daemon.server.add_insecure_port, descriptor)
            await daemon.server.start()
            try:
                await daemon.health.set_all(serving=True)
                memory.settle()
                self._notify.ready(f"serving on {socket.path}")
                log.info("serving", extra={"socket": str(socket.path), "version": daemon.version})
                await self._stopping.wait()
                grace = daemon.settings.grace_seconds
                self._notify.stopping("finishing what is in flight", grace + END_SECONDS)
                log.info("stopping", extra={"grace": grace})
                await daemon.health.set_all(serving=False)
            finally:
                self._stopping.set()
                socket.before_stop()
                await daemon.server.stop(daemon.settings.grace_seconds)
                await daemon.tasks.end()
        log.info("stopped")

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)

    async def _watchdog(self, interval: float) -> None:
        while True:
            self._notify.watchdog()
            await asyncio.sleep(interval / 3)

    async def _reloads(self, daemon: Daemon[S]) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            self._notify.reloading()
            try:
                await self._reload(daemon)
            finally:
                daemon.health.reloads += 1
                self._notify.ready(f"serving on {daemon.socket}")

    async def _reload(self, daemon: Daemon[S]) -> None:
        try:
            loaded = await asyncio.to_thread(commandline.load_config, self._definition, self._options)
        except ConfigError as error:
            for problem in error.problems:
                log.error("reload refused, the old settings stay", extra={"problem": problem})
            return
        found = list(changes(daemon.settings, loaded.settings))
        report(found)
        merged = merge(daemon.settings, loaded.settings)
        self._apply_log_level(merged)
        # Also with equal settings: the files that they name, such as certificates, may have changed.
        for failure in await daemon.reloaded(merged):
            log.error("reload: a part of the daemon failed to take its settings", exc_info=failure)

    def _apply_log_level(self, settings: ServiceSettings) -> None:
        logs.set_levels(settings.log)
        if self._options.log_level:
            logging.getLogger().setLevel(LogLevel(self._options.log_level).name)


@asynccontextmanager
async def _telemetry(
    definition: Definition[S],
    settings: ServiceSettings,
    metrics: Metrics,
    tasks: Tasks,
    interceptor: ServerInterceptor,
    addresses: ExitStack,
) -> AsyncIterator[telemetry.Telemetry]:
    """Spans and metrics for the time of the context; nothing is imported or started when both are off.

    :param addresses: gets what gives the address of the endpoint up.
    """
    turned_on = telemetry.start(definition.name, definition.version, settings, metrics)
    try:
        if metrics.recording:
            tasks.create_task(loop_metrics(metrics, interceptor), name="loop lag")
        if turned_on.registry is None:
            yield turned_on
            return
        from triptych_service import endpoint

        address = telemetry.metrics_address(settings)
        async with endpoint.serve(address, turned_on.registry) as close:
            addresses.callback(close)
            yield turned_on
    finally:
        await asyncio.to_thread(turned_on.shutdown)


def _retrace(
    definition: Definition[S], settings: S, turned_on: telemetry.Telemetry
) -> Callable[[S], Awaitable[None]]:
    """What a reload does to tracing: nothing unless `[telemetry]` changed."""
    known = settings.telemetry

    async def reloaded(changed: S) -> None:
        nonlocal known
        if changed.telemetry != known:
            known = changed.telemetry
            await asyncio.to_thread(turned_on.retrace, definition.name, definition.version, changed)

    return reloaded


def _server(settings: ServiceSettings, interceptor: ServerInterceptor) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=[interceptor],
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            # What is sent is the receiver's to limit, and gRPC's default: some take more than the kubelet.
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
