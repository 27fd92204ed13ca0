"""containerd as a peer of benchmarks: its own directories, socket, bridge; nothing of it stays."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych_linux import mounts

from triptych_dev.benches import memory
from triptych_dev.benches.memory import Memory
from triptych_dev.errors import DevError, StepFailed
from triptych_dev.stack import Process, free_port, spawn, wait_for

_SHIM_SOCKETS = Path("/run/containerd")
_BINARIES = ["/opt/cni/bin", "/usr/lib/cni"]


@dataclass(slots=True)
class Containerd:
    """A containerd with one OCI runtime.

    :param program: the containerd binary; its shim is looked for beside it, then in PATH.
    :param runtime: crun or runc, a name in PATH.
    :param pause: reference of the sandbox image, on a registry of loopback.
    :param network: the conflist of its pods.
    """

    root: Path
    program: str
    runtime: str
    pause: str
    network: dict[str, Any]
    process: Process | None = None
    made: list[Path] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return Path("/run") / f"triptych-bench-{self.root.name}"

    @property
    def socket(self) -> str:
        return str(self.state / "containerd.sock")

    def version(self) -> str:
        """What it calls itself, such as 1.6.20."""
        done = subprocess.run(
            [self.program, "--version"], capture_output=True, text=True, timeout=10, check=True
        )
        found = re.search(r"\bv?(\d+\.\d+\.\d+)", done.stdout)
        if found is None:
            raise DevError(f"{self.program} --version: cannot find a version in {done.stdout!r}")
        return found.group(1)

    def start(self) -> None:
        """Start it and wait until pods can run.

        :raises StackError: with the end of its log.
        """
        path = shutil.which(self.runtime)
        if path is None:
            raise DevError(f"no {self.runtime} in PATH")
        self.made = [p for p in (_SHIM_SOCKETS, Path("/var/lib/cni")) if not p.exists()]
        cni = self.root / "cni"
        cni.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        (cni / "10-bench.conflist").write_text(json.dumps(self.network))
        config = self.root / "config.toml"
        modern = int(self.version().partition(".")[0]) >= 2
        config.write_text(self._modern(path) if modern else self._classic(path))
        search = f"{Path(self.program).parent}:{os.environ.get('PATH', os.defpath)}"
        self.process = spawn(
            "containerd",
            [self.program, "--config", str(config)],
            self.root / "log",
            {"PATH": search},
        )
        wait_for(self._ready, self.process)

    def _head(self, version: int) -> str:
        return (
            f'version = {version}\nroot = "{self.root}/root"\nstate = "{self.state}/state"\n'
            f'[grpc]\naddress = "{self.socket}"\n'
            f'[plugins."io.containerd.internal.v1.opt"]\npath = "{self.root}/opt"\n'
        )

    def _options(self, prefix: str, path: str) -> str:
        return (
            f'[{prefix}.containerd]\ndefault_runtime_name = "{self.runtime}"\n'
            f'[{prefix}.containerd.runtimes.{self.runtime}]\nruntime_type = "io.containerd.runc.v2"\n'
            f"[{prefix}.containerd.runtimes.{self.runtime}.options]\n"
            f'BinaryName = "{path}"\nRoot = "{self.state}/{self.runtime}"\nSystemdCgroup = false\n'
        )

    def _classic(self, path: str) -> str:
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        return (
            self._head(2) + f'[{cri}]\nsandbox_image = "{self.pause}"\nstream_server_address = "127.0.0.1"\n'
            f'stream_server_port = "{free_port()}"\nnetns_mounts_under_state_dir = true\n'
            "restrict_oom_score_adj = true\n"
            f'[{cri}.cni]\nbin_dir = "{plugin_directory()}"\nconf_dir = "{self.root}/cni"\n'
        ) + self._options(cri, path)

    def _modern(self, path: str) -> str:
        images, runtime = 'plugins."io.containerd.cri.v1.images"', 'plugins."io.containerd.cri.v1.runtime"'
        return (
            self._head(3) + '[plugins."io.containerd.nri.v1.nri"]\ndisable = true\n'
            f'socket_path = "{self.state}/nri.sock"\n'
            f'[{images}.pinned_images]\nsandbox = "{self.pause}"\n'
            '[plugins."io.containerd.grpc.v1.cri"]\nstream_server_address = "127.0.0.1"\n'
            f'stream_server_port = "{free_port()}"\n'
            f"[{runtime}]\nnetns_mounts_under_state_dir = true\nrestrict_oom_score_adj = true\n"
            f'[{runtime}.cni]\nbin_dirs = ["{plugin_directory()}"]\nconf_dir = "{self.root}/cni"\n'
        ) + self._options(runtime, path)

    def _ready(self) -> bool:
        if not os.path.exists(self.socket):
            return False
        with grpc.insecure_channel(f"unix:{self.socket}") as channel, contextlib.suppress(grpc.RpcError):
            stub = api_pb2_grpc.RuntimeServiceStub(channel)
            status = stub.Status(api_pb2.StatusRequest(), timeout=2).status
            ready = {condition.type for condition in status.conditions if condition.status}
            return {"RuntimeReady", "NetworkReady"} <= ready
        return False

    def shims(self) -> list[int]:
        """Its shims; they outlive the daemon."""
        return memory.find(lambda command: "containerd-shim" in command and self.socket in command)

    def memory(self) -> dict[str, Memory]:
        """What it costs the node: the daemon, and its shims with the pause processes."""
        assert self.process is not None
        shims = self.shims()
        pauses = [pid for pid in memory.children(shims) if _is_pause(pid)]
        return {
            "daemon": memory.of_group([self.process.popen.pid]),
            "pods": memory.of_group([*shims, *pauses]),
            "all": memory.of_group([self.process.popen.pid, *shims, *pauses]),
        }

    def stop(self) -> None:
        """Stop it and remove every trace of it.

        :raises StepFailed: when something of it stays mounted.
        """
        if self.process is not None:
            with contextlib.suppress(grpc.RpcError):
                self._remove_pods()
            self.process.stop()
        for pid in self.shims():
            for victim in [*memory.children([pid]), pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
        for directory in (self.state, self.root):
            _remove(directory)
        bridge = self.network["plugins"][0]["bridge"]
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, timeout=10, check=False)
        for path in self.made:
            shutil.rmtree(path, ignore_errors=True)
        self.process = None

    def _remove_pods(self) -> None:
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            stub = api_pb2_grpc.RuntimeServiceStub(channel)
            for pod in stub.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=30).items:
                stub.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)
                stub.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)


def plugin_directory() -> str:
    """The directory of the CNI plugins."""
    for directory in _BINARIES:
        if Path(directory, "bridge").exists():
            return directory
    raise DevError("no CNI plugins: apt install containernetworking-plugins")


def _is_pause(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/pause\0")
    return False


def _remove(directory: Path) -> None:
    """Remove a directory with everything that is mounted below; what just ended may hold it a moment."""
    for _ in range(50):
        if not directory.exists():
            return
        mounts.umount_below(directory)
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            time.sleep(0.1)
    if directory.exists():
        raise StepFailed(f"cannot remove {directory}")
