"""Wiring the runtime daemon."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from triptych_service import Daemon, connect, memory

from triptych_runtime import apparmor, clock, recovery
from triptych_runtime.cgroups import CgroupManager, Driver
from triptych_runtime.checkpoint.criu import Criu
from triptych_runtime.clients import ImageClient, StreamingClient
from triptych_runtime.containers.exits import on_exit, on_monitor_lost
from triptych_runtime.containers.plugins import load_nri
from triptych_runtime.events import EventBus
from triptych_runtime.metrics import RuntimeMetrics, declare_state
from triptych_runtime.monitor import Conmon, Exit, ExitWatch
from triptych_runtime.namespaces import NamespaceSettings, PodFiles, PodInit, PodNamespaces
from triptych_runtime.network import Network
from triptych_runtime.node import Node, Paths
from triptych_runtime.nri import serve as nri
from triptych_runtime.ociruntime import HandlerConfig, Handlers, ProbeCache, Prober
from triptych_runtime.readiness import Readiness
from triptych_runtime.rpc.image_forward import SERVICE as IMAGE_SERVICE
from triptych_runtime.rpc.image_forward import ImageForwarder
from triptych_runtime.rpc.service import ENDLESS, SERVICE, add_to_server
from triptych_runtime.sandboxes import on_init_end
from triptych_runtime.settings import Settings
from triptych_runtime.spec import HostFacts
from triptych_runtime.stats import StatsCollector
from triptych_runtime.store import Database, State
from triptych_runtime.subjects import LayerUsageReader
from triptych_runtime.workers import Workers

log = logging.getLogger(__name__)

# The end takes no longer than systemd is told: `END_SECONDS` of triptych_service.running.
_DRAIN_SECONDS = 10.0
_UNDO_SECONDS = 6.0
_THREAD_SECONDS = 3.0
_THREADS = 128
_HUNG_SECONDS = 10.0
_IDLE_SECONDS = 5.0


@asynccontextmanager
async def start(daemon: Daemon[Settings]) -> AsyncIterator[None]:
    """Serve RuntimeService and the forwarding ImageService until the daemon stops."""
    settings = daemon.settings
    # Threads are made when needed, and beside those that hang in the kernel.
    workers = Workers(
        _THREADS,
        "worker",
        hung_seconds=_HUNG_SECONDS,
        idle_seconds=_IDLE_SECONDS,
        last_seconds=_THREAD_SECONDS,
        on_quiet=memory.trim,
    )
    asyncio.get_running_loop().set_default_executor(workers)
    images = connect(settings.image_socket)
    streaming = connect(settings.streaming_socket, intercepted=False)
    node = await _node(daemon, images, streaming)
    ready = Readiness()
    add_to_server(daemon.server, node, ready)
    daemon.add_service_name(SERVICE, endless=ENDLESS)
    daemon.server.add_generic_rpc_handlers((ImageForwarder(images, settings.image_socket),))
    daemon.add_service_name(IMAGE_SERVICE)
    prober = _prober(node)
    daemon.on_reload(lambda new: _reload(node, prober, new))
    snapshot = await node.database.open()
    rebooted = recovery.load(node, snapshot)
    ready.set_loaded()
    daemon.tasks.create_task(_become_ready(daemon, node, prober, ready, rebooted))
    try:
        yield
    finally:
        node.events.close()
        await node.flights.drain(_DRAIN_SECONDS, _UNDO_SECONDS)
        node.exits.stop()
        await node.database.close()
        node.cgroups.forget_monitors()
        await images.close()
        await streaming.close()


async def _become_ready(
    daemon: Daemon[Settings], node: Node, prober: Prober, ready: Readiness, rebooted: bool
) -> None:
    started = clock.now()
    await node.network.start(daemon.tasks)
    await prober.probe(node.handlers)
    daemon.tasks.create_task(prober.keep_probing(node.handlers))
    await apparmor.ensure_loaded(node.host.apparmor)
    await recovery.reconcile(node, rebooted=rebooted)
    await nri.start(lambda: load_nri(node), node.settings.nri, str(node.paths.state), daemon.tasks)
    ready.set_reconciled()
    seconds = (clock.now() - started) / 1e9
    extra = {
        "seconds": round(seconds, 3),
        "sandboxes": len(node.state.sandboxes),
        "containers": len(node.state.containers),
    }
    log.info("ready", extra=extra)
    await recovery.clean_up(node)
    await recovery.keep_removing_root_filesystems(node)


async def _reload(node: Node, prober: Prober, settings: Settings) -> None:
    node.settings = settings
    prober.soon()
    node.network.reconfigure(settings.network)
    if settings.nri.validates:
        await load_nri(node)


async def _node(daemon: Daemon[Settings], images: grpc.aio.Channel, streaming: grpc.aio.Channel) -> Node:
    settings = daemon.settings
    paths = Paths(Path(settings.root), Path(settings.state))
    for directory in (paths.root, paths.state, paths.exec, paths.state / "containers"):
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    database = Database(paths.root / "state.db")
    pods = _pods(settings)
    namespaces = PodNamespaces(paths.state, pods)
    await namespaces.start()
    cgroups = CgroupManager.detect(settings.cgroup_driver.value)
    if settings.favor_cgroup_moves and not await asyncio.to_thread(cgroups.favor_dynamic_changes):
        log.warning("favor_cgroup_moves is set, but this kernel cannot do it")
    image_client = ImageClient(images, settings.image_socket)

    def exited(found: Exit) -> None:
        on_exit(node, found)

    def monitor_lost(container_id: str) -> None:
        on_monitor_lost(node, container_id)

    def init_ended(sandbox_id: str) -> None:
        on_init_end(node, sandbox_id)

    node = Node(
        settings=settings,
        paths=paths,
        host=_host(settings),
        database=database,
        state=State(database),
        handlers=Handlers({}, settings.default_handler),
        cgroups=cgroups,
        namespaces=namespaces,
        files=PodFiles(paths.state),
        init=PodInit(paths.state, pods, ended=init_ended),
        network=Network(settings.network, paths.root),
        conmon=_conmon(settings, paths, cgroups),
        exits=ExitWatch(paths.exits, exited, clock.now, monitor_lost),
        events=EventBus(),
        stats=StatsCollector(LayerUsageReader(image_client), daemon.tasks),
        images=image_client,
        criu=Criu(settings.containers.checkpoint),
        streaming=StreamingClient(streaming, settings.streaming_socket, settings.deadlines.streaming),
        metrics=RuntimeMetrics(daemon.metrics),
    )
    declare_state(daemon.metrics, node.state)
    node.exits.start()
    return node


def _pods(settings: Settings) -> NamespaceSettings:
    return NamespaceSettings(
        unprivileged_ports=settings.containers.unprivileged_ports,
        unprivileged_icmp=settings.containers.unprivileged_ping,
        init=shutil.which(settings.init) or settings.init,
    )


def _host(settings: Settings) -> HostFacts:
    return HostFacts.probe(
        seccomp_profile=Path(settings.containers.seccomp_profile),
        restrict_oom=settings.containers.restrict_oom_score_adj,
    )


def _conmon(settings: Settings, paths: Paths, cgroups: CgroupManager) -> Conmon:
    return Conmon(
        path=shutil.which(settings.conmon) or settings.conmon,
        exit_dir=paths.exits,
        deadline=settings.deadlines.monitor,
        log_level=settings.conmon_log_level.value,
        place=cgroups.place_monitor,
    )


def _prober(node: Node) -> Prober:
    settings = node.settings
    systemd = node.cgroups.driver is Driver.SYSTEMD
    configs = {
        name: HandlerConfig(
            handler.path or name,
            Path(handler.root) if handler.root else node.paths.state / "oci" / name,
            handler.enabled,
        )
        for name, handler in settings.handlers.items()
    }
    return Prober(
        configs,
        systemd_cgroup=systemd,
        cgroups_path="triptych.slice:triptych:" if systemd else "/triptych/",
        scratch=node.paths.state / "probe",
        deadline=settings.deadlines.oci_runtime,
        cache=ProbeCache(
            lambda: node.database.get_meta("probes"), lambda text: node.database.set_meta("probes", text)
        ),
    )
