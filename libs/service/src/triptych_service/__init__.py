"""The bootstrap that the three daemons share: socket, gRPC server, settings, logs, telemetry, signals.

# services/X/src/triptych_X/__main__.py
@asynccontextmanager
async def start(daemon: Daemon[Settings]) -> AsyncIterator[None]:
    rootfs_pb2_grpc.add_RootfsServiceServicer_to_server(servicer, daemon.server)
    daemon.add_service_name("triptych.rootfs.v1.RootfsService")
    yield

def main() -> None:
    run(Definition("triptych-X", VERSION, Settings, start, "/run/triptych/X.sock"))
"""

from __future__ import annotations

from triptych_service import lean, core, tracing  # isort: skip - the first two come before all else
from triptych_service.client import connect
from triptych_service.daemon import Daemon, Definition, Problem
from triptych_service.errors import ConfigError, SocketInUse, SocketUnusable
from triptych_service.interceptors import ServerInterceptor
from triptych_service.metrics import Counter, Gauge, Histogram, Metrics
from triptych_service.running import run
from triptych_service.settings import (
    LogFormat,
    LogLevel,
    LogSettings,
    MetricsSettings,
    Reload,
    ServiceSettings,
    Table,
    TelemetrySettings,
    setting,
)
from triptych_service.tracing import span

__all__ = [
    "ConfigError",
    "Counter",
    "Daemon",
    "Definition",
    "Gauge",
    "Histogram",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "Metrics",
    "MetricsSettings",
    "Problem",
    "Reload",
    "ServerInterceptor",
    "ServiceSettings",
    "SocketInUse",
    "SocketUnusable",
    "Table",
    "TelemetrySettings",
    "connect",
    "core",
    "lean",
    "run",
    "setting",
    "span",
    "tracing",
]
