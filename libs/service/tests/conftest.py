from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from triptych_dev.patience import PATIENCE

SAMPLE = Path(__file__).with_name("sample_daemon.py")


class Process:
    """A sample daemon in a process of its own."""

    def __init__(
        self, directory: Path, config: str, env: dict[str, str], sockets: dict[str, socket.socket]
    ) -> None:
        self.socket = directory / "sample.sock"
        self.config = directory / "sample.toml"
        self.config.write_text(f'socket = "{self.socket}"\n{config}')
        self._log = (directory / "log").open("w+")
        argv = [sys.executable, str(SAMPLE), "--config", str(self.config)]
        if sockets:
            argv, env = activated(argv, sockets), env | {"LISTEN_FDNAMES": ":".join(sockets)}
        self.process = subprocess.Popen(
            argv,
            env={**os.environ, **env},
            stderr=self._log,
            pass_fds=[passed.fileno() for passed in sockets.values()],
        )

    def text(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]

    def wait_for(self, message: str, seconds: float = 60 * PATIENCE, **fields: Any) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.lines():
                if line["message"] == message and fields.items() <= line.items():
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {message!r} {fields} in the log:\n{self.text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60 * PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60 * PATIENCE)
        self._log.close()


def activated(argv: list[str], sockets: dict[str, socket.socket]) -> list[str]:
    """A command as a service manager runs it: the sockets as descriptors from 3 on, and its own pid told."""
    # By way of high numbers, so that no move overwrites a descriptor that is still to be moved.
    up = " ".join(f"{100 + i}<&{s.fileno()} {s.fileno()}<&-" for i, s in enumerate(sockets.values()))
    down = " ".join(f"{3 + i}<&{100 + i} {100 + i}<&-" for i in range(len(sockets)))
    script = f'exec {up}; exec {down}; LISTEN_FDS={len(sockets)} LISTEN_PID=$$ exec "$@"'
    return ["bash", "-c", script, "bash", *argv]


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start sample daemons; each is gone when the test ends."""
    started: list[Process] = []

    def make(
        config: str = "",
        *,
        env: dict[str, str] | None = None,
        name: str = "a",
        wait: bool = True,
        sockets: dict[str, socket.socket] | None = None,
    ) -> Process:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        process = Process(directory, config, env or {}, sockets or {})
        started.append(process)
        if wait:
            process.wait_for("serving")
        return process

    yield make
    for process in started:
        process.close()


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[socket.socket]:
    """A datagram socket such as a service manager or a journal reads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "datagrams"))
        receiver.settimeout(10)
        yield receiver


@pytest.fixture
def serve_otlp() -> Iterator[Callable[[Any], str]]:
    """Serves a collector of traces and metrics; gives its URL."""
    servers: list[grpc.Server] = []

    def serve(servicer: Any) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        add_traces: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add_metrics: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
        add_traces(servicer, server)
        add_metrics(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"http://127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.stop(None).wait()
