"""A registry and the three daemons, isolated below one directory: for the demo, tests and benchmarks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych.rootfs.v1 import rootfs_pb2_grpc
from triptych_linux import mounts

from triptych_dev.patience import PATIENCE
from triptych_dev.processes import START_SECONDS, Process, StackError, free_port, pss, spawn, wait_for
from triptych_dev.stack_cgroups import kill_group, remove_cgroups
from triptych_dev.stack_settings import conflist, merge, toml

DAEMONS = ("image", "runtime", "streaming")
_PULL_SECONDS = 60.0 * PATIENCE

__all__ = [
    "DAEMONS",
    "Process",
    "Registry",
    "Stack",
    "StackError",
    "as_installed",
    "free_port",
    "pss",
    "spawn",
    "wait_for",
]


def as_installed() -> dict[str, list[str]]:
    """The command lines of this environment's daemons with the options that an installed node gives them.

    The first start compiles every module, so it is for what measures.
    """
    options = ("-OO", "-X", "no_debug_ranges")
    return {daemon: [sys.executable, *options, "-m", f"triptych_{daemon}"] for daemon in DAEMONS}


class Registry:
    """Debian's docker-registry on a port of loopback."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.host = f"127.0.0.1:{free_port()}"
        self._process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: warn}\n"
            f"storage: {{filesystem: {{rootdirectory: {self._directory}/data}},"
            " delete: {enabled: true}}\n"
            f"http: {{addr: {self.host}}}\n"
        )
        program = shutil.which("docker-registry") or "/usr/bin/docker-registry"
        self._process = spawn("docker-registry", [program, "serve", str(config)], self._directory / "log")
        wait_for(lambda: _connects(self.host), self._process)

    @property
    def pids(self) -> list[int]:
        """The processes of the registry that runs."""
        return [self._process.popen.pid] if self._process is not None else []

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()


def _connects(host: str) -> bool:
    name, _, port = host.partition(":")
    with contextlib.suppress(OSError), socket.create_connection((name, int(port)), 1):
        return True
    return False


@dataclass(slots=True)
class Stack:
    """The three daemons with configuration, state and sockets of their own.

    :param root: directory on disk for what survives; made, and removed by `clean`.
    :param name: short and unique on the node: names the state directory /run/NAME and the bridge.
    :param subnet: of the pods, CIDR.
    :param overrides: more settings by daemon, merged into the configuration: {"runtime": {...}}.
    :param programs: command lines by daemon instead of this environment's, such as a PEX.
    """

    root: Path
    name: str = "triptych-test"
    subnet: str = "10.98.0.0/16"
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    programs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return Path("/run") / self.name

    @property
    def bridge(self) -> str:
        return f"{self.name[:12]}0"

    def socket(self, daemon: str) -> str:
        """The path of a daemon's socket."""
        return str(self.state / f"{daemon}.sock")

    def endpoint(self, daemon: str) -> str:
        """A daemon's socket as the kubelet writes it."""
        return f"unix://{self.socket(daemon)}"

    def write_configuration(self) -> None:
        """Write the CNI configuration and one TOML file a daemon."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        self.write_network(conflist(self.name, self.bridge, self.subnet, self.root / "ipam"))
        for daemon in DAEMONS:
            settings = merge(self._settings(daemon), self.overrides.get(daemon, {}))
            self.config_file(daemon).write_text(toml(settings))

    def write_network(self, network: Mapping[str, Any]) -> None:
        """Write the CNI configuration."""
        cni = self.root / "cni"
        cni.mkdir(exist_ok=True)
        (cni / "10-test.conflist").write_text(json.dumps(network))

    def config_file(self, daemon: str) -> Path:
        return self.root / f"{daemon}.toml"

    def _settings(self, daemon: str) -> dict[str, Any]:
        common: dict[str, Any] = {"socket": self.socket(daemon), "log": {"format": "text"}}
        match daemon:
            case "image":
                return {**common, "root": str(self.root / "image")}
            case "runtime":
                return {
                    **common,
                    "root": str(self.root / "runtime"),
                    "state": str(self.state / "runtime"),
                    "image_socket": self.socket("image"),
                    "streaming_socket": self.socket("streaming"),
                    "network": {
                        "conf_dirs": [str(self.root / "cni")],
                        "bin_dirs": ["/opt/cni/bin", "/usr/lib/cni"],
                        "cache_dir": str(self.root / "network"),
                    },
                    "nri": {
                        "socket": str(self.state / "nri.sock"),
                        "plugin_dir": str(self.root / "nri"),
                        "plugin_config_dir": str(self.root / "nri.d"),
                    },
                }
            case _:
                # A port of its own: instances that share one must share their sessions as well.
                listen = f"127.0.0.1:{free_port()}"
                return {**common, "state": str(self.state / "streaming"), "http": {"listen": listen}}

    def start(self, *daemons: str, env: Mapping[str, str] | None = None) -> None:
        """Start daemons (all by default) and wait until their sockets serve."""
        for daemon in daemons or DAEMONS:
            program = self.programs.get(daemon, (sys.executable, "-m", f"triptych_{daemon}"))
            argv = [*program, "--config", str(self.config_file(daemon))]
            self.processes[daemon] = spawn(f"triptych-{daemon}", argv, self.root / f"{daemon}.log", env)
        for daemon in daemons or DAEMONS:
            self._await_service(daemon)
        if "image" in (daemons or DAEMONS) and "runtime" in self.processes:
            wait_for(self._finds_images, self.processes["runtime"])

    def _await_service(self, daemon: str) -> None:
        service = {
            "image": "runtime.v1.ImageService",
            "runtime": "runtime.v1.RuntimeService",
            "streaming": "triptych.streaming.v1.StreamingService",
        }[daemon]
        wait_for(lambda: _serving(self.socket(daemon), service), self.processes[daemon])

    def _finds_images(self) -> bool:
        """Whether the runtime daemon has found the image daemon; it looks again after up to 0.2 s."""
        with _channel(self.socket("runtime")) as channel, contextlib.suppress(grpc.RpcError):
            api_pb2_grpc.ImageServiceStub(channel).ListImages(api_pb2.ListImagesRequest(), timeout=2)
            return True
        return False

    def stop(self, *daemons: str, number: int = signal.SIGTERM) -> None:
        """Stop daemons (all by default), the runtime daemon first."""
        for daemon in daemons or ("streaming", "runtime", "image"):
            process = self.processes.pop(daemon, None)
            if process is not None:
                process.stop(number)

    def kill(self, daemon: str) -> None:
        """kill -9."""
        self.stop(daemon, number=signal.SIGKILL)

    def wait_for_death(self, daemon: str, seconds: float = START_SECONDS) -> None:
        """Wait until a daemon has ended by itself (a fault point struck)."""
        self.processes.pop(daemon).popen.wait(seconds)

    def pods(self) -> set[str]:
        """IDs of all pods and containers that were ever begun here, by the daemon's log."""
        log = self.root / "runtime.log"
        return set(re.findall(r"\b[0-9a-f]{64}\b", log.read_text(errors="replace") if log.exists() else ""))

    def _kill_containers(self) -> None:
        """End what a failed test left running, by the cgroups of the pods that were ours."""
        for name in {path.name for path in (self.state / "runtime" / "ns").glob("*")}:
            for directory in Path("/sys/fs/cgroup").glob(f"*/triptych/{name}"):
                kill_group(directory)

    @contextlib.contextmanager
    def runtime(self) -> Iterator[api_pb2_grpc.RuntimeServiceStub]:
        """RuntimeService over a connection of its own."""
        with _channel(self.socket("runtime")) as channel:
            yield api_pb2_grpc.RuntimeServiceStub(channel)

    @contextlib.contextmanager
    def images(self) -> Iterator[api_pb2_grpc.ImageServiceStub]:
        """ImageService over a connection of its own."""
        with _channel(self.socket("image")) as channel:
            yield api_pb2_grpc.ImageServiceStub(channel)

    @contextlib.contextmanager
    def root_filesystems(self) -> Iterator[rootfs_pb2_grpc.RootfsServiceStub]:
        """What the runtime daemon asks of the image daemon, over a connection of its own."""
        with _channel(self.socket("image")) as channel:
            yield rootfs_pb2_grpc.RootfsServiceStub(channel)

    def pull(self, image: str) -> None:
        """Have the image daemon pull an image."""
        with self.images() as images:
            request = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=image))
            images.PullImage(request, timeout=_PULL_SECONDS)

    @contextlib.contextmanager
    def serving(self, image: str, *daemons: str) -> Iterator[None]:
        """Daemons that run, all unless named, with an image that is pulled by its name; cleaned after."""
        try:
            self.start(*daemons)
            self.pull(image)
            yield
        finally:
            self.clean()

    def clean(self) -> None:
        """Stop everything and remove every trace: pods, mounts, bridge, cgroups, directories."""
        with contextlib.suppress(StackError):
            self.stop()
        self._kill_containers()
        pods = self.pods()
        for directory in (self.state, self.root):
            if directory.exists():
                mounts.umount_below(directory)
                shutil.rmtree(directory, ignore_errors=True)
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True, timeout=10, check=False)
        remove_cgroups(pods)


def _serving(path: str, service: str) -> bool:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    if not os.path.exists(path):
        return False
    with _channel(path) as channel, contextlib.suppress(grpc.RpcError):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False


def _channel(path: str) -> grpc.Channel:
    # An own connection each time: gRPC would share a failed one with its backoff.
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.insecure_channel(f"unix:{path}", options=options)
