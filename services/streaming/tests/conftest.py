"""A streaming daemon as a process, and a real container of crun and conmon to stream with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych.streaming.v1 import streaming_pb2_grpc
from triptych_dev.patience import PATIENCE
from triptych_dev.testing.ocicontainer import (
    CRUN,
    GROUP,
    RUNC,
    Container,
    run_container,
    write_bundle,
)
from triptych_dev.testing.plugin import demand

READY_SECONDS = 20.0 * PATIENCE


@dataclass(slots=True)
class StreamingProcess:
    """A running daemon."""

    process: subprocess.Popen[bytes]
    socket: Path
    state: Path
    log: Path
    channel: grpc.Channel = field(init=False)
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        self.channel = grpc.insecure_channel(
            f"unix:{self.socket}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self.stub = streaming_pb2_grpc.StreamingServiceStub(self.channel)

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        """Processes that it is the parent of."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(path.read_text().rpartition(")")[2].split()[1]) == self.pid:
                    found.append(int(path.parent.name))
        return found

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(grpc.RpcError):
                self.stub.ListSessions(pb.ListSessionsRequest(), timeout=1)
                return
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def stop(self, seconds: float = READY_SECONDS) -> int:
        """SIGTERM, and its exit status."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    async def audit(
        self, pod: str = "web", count: int = 1, seconds: float = READY_SECONDS
    ) -> list[dict[str, Any]]:
        """The audit lines of sessions in a pod, once there are `count`."""
        deadline = time.monotonic() + seconds
        while True:
            lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
            found = [line for line in lines if line.get("logger") == "triptych_streaming.audit"]
            found = [line for line in found if line.get("pod") == pod]
            if len(found) >= count or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.02)


Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Waits until something holds, and fails when it does not in good time."""

    async def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not come to hold"
            await asyncio.sleep(0.02)

    return wait


class Launcher:
    """Starts daemons that share a state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[StreamingProcess] = []

    def __call__(
        self,
        extra: str = "",
        *,
        listen: str = "127.0.0.1:0",
        sockets: dict[str, socket.socket] | None = None,
        env: dict[str, str] | None = None,
        control: Path | None = None,
        wait: bool = True,
    ) -> StreamingProcess:
        """Start one.

        :param extra: more TOML; with an `[http]` table, `listen` is not used.
        :param sockets: passed as systemd does, by name.
        :param env: added to the environment.
        :param control: path of its gRPC socket.
        """
        name = f"s{len(self.started)}"
        state, path = self.directory / "state", control or self.directory / f"{name}.sock"
        config = self.directory / f"{name}.toml"
        tables = "" if "[http]" in extra else f'[http]\nlisten = "{listen}"\n'
        config.write_text(f'state = "{state}"\nsocket = "{path}"\n{tables}{extra}')
        log = self.directory / f"{name}.log"
        process = _spawn(config, log, sockets or {}, env or {})
        daemon = StreamingProcess(process, path, state, log)
        self.started.append(daemon)
        if wait:
            daemon.wait_ready()
        return daemon

    def stop(self) -> None:
        """Stop them; a second signal cuts sessions off that still run."""
        for daemon in self.started:
            daemon.channel.close()
            if daemon.process.poll() is None:
                daemon.process.terminate()
                time.sleep(0.1)
                daemon.process.terminate()
                daemon.process.wait(READY_SECONDS)


@pytest.fixture
def start_streaming(tmp_path: Path) -> Iterator[Launcher]:
    """Starts daemons for one test."""
    launcher = Launcher(tmp_path)
    yield launcher
    launcher.stop()


@pytest.fixture(scope="module")
def shared_streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamingProcess]:
    """One daemon for a module's tests, with short patience."""
    launcher = Launcher(tmp_path_factory.mktemp("streaming"))
    yield launcher("[timeouts]\nhangup = 0.5\nlinger = 0.5\ncreation = 1.0\ndial = 1.0\n")
    launcher.stop()


def _spawn(
    config: Path, log: Path, sockets: dict[str, socket.socket], env: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start the daemon by way of a shell that puts the passed sockets at 3 and above."""
    argv = [sys.executable, "-m", "triptych_streaming", "--config", str(config)]
    environment = {**os.environ, **env}
    if sockets:
        # The descriptors move to 3.. in the child; LISTEN_PID must be its own, which only it knows.
        moves = " ".join(f"{3 + index}<&{each.fileno()}" for index, each in enumerate(sockets.values()))
        script = f"export LISTEN_PID=$$ LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={':'.join(sockets)}; "
        argv = ["/bin/bash", "-c", f'{script} exec "$@" {moves}', "daemon", *argv]
    with log.open("ab") as file:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            pass_fds=[each.fileno() for each in sockets.values()],
        )


MakeContainer = Callable[..., Container]


@pytest.fixture(scope="module")
def make_container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeContainer]:
    """Makes containers that run until the module's tests are over."""
    demand("crun", "conmon", "busybox")
    base = tmp_path_factory.mktemp("containers")
    made: list[Container] = []

    def make(
        *args: str, tty: bool = False, stdin: bool = False, stdin_once: bool = False, runtime: str = CRUN
    ) -> Container:
        root = base / Path(runtime).name
        name = f"streaming-{os.getpid()}-{len(made)}-{time.monotonic_ns() % 10**6}"
        bundle = base / name
        write_bundle(bundle, list(args) or ["/bin/sleep", "100000"], tty)
        container = run_container(name, bundle, root, runtime, tty=tty, stdin=stdin, stdin_once=stdin_once)
        made.append(container)
        return container

    yield make
    for container in made:
        subprocess.run([*container.runtime_command, "delete", "--force", container.id], capture_output=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(container.conmon, signal.SIGKILL)
    # In the root of each hierarchy. Not looked for further down: others' groups come and go there.
    root = Path("/sys/fs/cgroup")
    for group in (root / GROUP, *root.glob(f"*/{GROUP}")):
        with contextlib.suppress(OSError):  # others may still use it
            group.rmdir()


@pytest.fixture(scope="module", params=[CRUN, RUNC], ids=["crun", "runc"])
def any_container(request: pytest.FixtureRequest, make_container: MakeContainer) -> Container:
    """A container that sleeps, by each OCI runtime."""
    demand(Path(request.param).name)
    return make_container(runtime=request.param)


@pytest.fixture(scope="module")
def container(make_container: MakeContainer) -> Container:
    """A container that sleeps."""
    return make_container()
