"""Wiring the image daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from runtime.v1 import api_pb2_grpc
from triptych.image.v1 import image_pb2_grpc
from triptych.rootfs.v1 import rootfs_pb2_grpc
from triptych_service import Daemon

from triptych_image.app import App
from triptych_image.janitor import clean
from triptych_image.metrics import ImageMetrics
from triptych_image.policy import PolicyEngine
from triptych_image.pull.puller import Puller
from triptych_image.registry import RegistryClient
from triptych_image.rootfs.manager import RootfsManager
from triptych_image.rootfs.usage import UsageMeter
from triptych_image.rpc.services import ImageAdminService, ImageService, RootfsService
from triptych_image.settings import Settings
from triptych_image.store import Paths, Store
from triptych_image.store.paths import same_filesystem
from triptych_image.unpack.pool import UnpackWorkers


@asynccontextmanager
async def start(daemon: Daemon[Settings]) -> AsyncIterator[None]:
    """Open the store and serve."""
    settings = daemon.settings
    root = Path(settings.root)
    paths = Paths(root, Path(settings.rootfs_root) if settings.rootfs_root else root / "rootfs")
    async with AsyncExitStack() as stack:
        store = Store(paths, sync=settings.unpack.sync, keep_seconds=settings.pull.resume_seconds)
        stack.push_async_callback(store.close)
        await store.open()
        workers = UnpackWorkers(settings.unpack.idle_seconds)
        stack.push_async_callback(workers.close)
        registry = await stack.enter_async_context(RegistryClient(settings.registry))
        policy = PolicyEngine(settings.policy)
        meter = UsageMeter(settings.usage_seconds)
        stack.callback(meter.close)
        shared = same_filesystem(paths.root, paths.rootfs)
        app = App(
            settings=settings,
            store=store,
            workers=workers,
            registry=registry,
            puller=Puller(store, registry, policy, workers, daemon.tasks, settings),
            rootfs=RootfsManager(store, meter),
            meter=meter,
            image_mountpoint=str(paths.root),
            rootfs_mountpoint=str(paths.root if shared else paths.rootfs),
        )

        async def reload(changed: Settings) -> None:
            app.settings = changed
            registry.reconfigure(changed.registry)
            policy.reconfigure(changed.policy)
            app.puller.reconfigure(changed)
            meter.max_age = changed.usage_seconds

        ImageMetrics(daemon.metrics, app)
        daemon.on_reload(reload)
        _serve(daemon, app)
        daemon.tasks.create_task(clean(app), name="janitor")
        yield


def _serve(daemon: Daemon[Settings], app: App) -> None:
    api_pb2_grpc.add_ImageServiceServicer_to_server(ImageService(app), daemon.server)
    daemon.add_service_name("runtime.v1.ImageService")
    rootfs_pb2_grpc.add_RootfsServiceServicer_to_server(RootfsService(app), daemon.server)
    daemon.add_service_name("triptych.rootfs.v1.RootfsService")
    image_pb2_grpc.add_ImageAdminServiceServicer_to_server(ImageAdminService(app), daemon.server)
    daemon.add_service_name("triptych.image.v1.ImageAdminService", endless=("WatchPulls",))
