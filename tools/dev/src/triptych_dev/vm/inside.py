"""For tests that run inside the machine: the node as a kubelet and an operator see it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from runtime.v1 import api_pb2 as cri
from runtime.v1 import api_pb2_grpc

from triptych_dev.kubelet import container_config, pod_config
from triptych_dev.patience import PATIENCE

T = TypeVar("T")

STATE = Path("/var/lib/triptych-node/life.json")
DAEMONS = ("image", "runtime", "streaming")
DEADLINE = 60 * PATIENCE
MIB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")
SLEEP = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")


@dataclass
class Node:
    """The node, as a kubelet and an operator see it."""

    facts: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def runtime(self) -> Iterator[Any]:
        """RuntimeService over a connection of its own."""
        with self._channel("runtime") as channel:
            yield api_pb2_grpc.RuntimeServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]

    @contextlib.contextmanager
    def images(self) -> Iterator[Any]:
        """ImageService over a connection of its own."""
        with self._channel("image") as channel:
            yield api_pb2_grpc.ImageServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]

    @staticmethod
    def _channel(daemon: str) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
        return grpc.insecure_channel(f"unix:/run/triptych/{daemon}.sock", options=options)

    def call(self, name: str, request: Any) -> Any:
        """One RPC of the runtime daemon, which is waited for while it restarts."""
        with self.runtime() as stub:
            return getattr(stub, name)(request, timeout=DEADLINE, wait_for_ready=True)

    def run_pod(
        self,
        name: str,
        change: Callable[[cri.PodSandboxConfig], None] | None = None,
        handler: str = "",
        **options: Any,
    ) -> tuple[str, cri.PodSandboxConfig]:
        """A sandbox: its ID and configuration."""
        config = pod_config(name, **options)
        if change is not None:
            change(config)
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return self.call("RunPodSandbox", request).pod_sandbox_id, config

    def run_container(
        self,
        sandbox: tuple[str, cri.PodSandboxConfig],
        name: str,
        command: tuple[str, ...] = SLEEP,
        change: Callable[[cri.ContainerConfig], None] | None = None,
    ) -> str:
        """A started container: its ID."""
        config = container_config(name, self.facts["image"], command)
        if change is not None:
            change(config)
        identity: str = self.call(
            "CreateContainer",
            cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=config, sandbox_config=sandbox[1]),
        ).container_id
        self.call("StartContainer", cri.StartContainerRequest(container_id=identity))
        return identity

    def exec(self, container: str, *command: str) -> str:
        """What a command in a container prints."""
        request = cri.ExecSyncRequest(container_id=container, cmd=command, timeout=60)
        answer = self.call("ExecSync", request)
        assert answer.exit_code == 0, answer.stderr.decode()
        output: bytes = answer.stdout
        return output.decode()

    def status(self, container: str) -> Any:
        """The ContainerStatus message."""
        return self.call("ContainerStatus", cri.ContainerStatusRequest(container_id=container)).status

    def pid(self, container: str) -> int:
        """The first process of a container, from the verbose status."""
        request = cri.ContainerStatusRequest(container_id=container, verbose=True)
        info = self.call("ContainerStatus", request).info
        return int(json.loads(info["info"])["pid"])

    def remove_pod(self, sandbox: str) -> None:
        """Stop and remove a pod."""
        self.call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        self.call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))

    @classmethod
    def load(cls) -> Node:
        """With what was known before a reboot."""
        return cls(json.loads(STATE.read_text()) if STATE.exists() else {})

    def save(self) -> None:
        """Keep `facts` over a reboot."""
        STATE.write_text(json.dumps(self.facts))


def systemctl(*arguments: str) -> str:
    """Run systemctl; what it prints."""
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.strip()


def eventually(check: Callable[[], T], seconds: float = 20) -> T:
    """Call until the answer is true.

    :param seconds: on an ordinary machine.
    """
    end = time.monotonic() + seconds * PATIENCE
    while True:
        answer = check()
        if answer or time.monotonic() > end:
            assert answer
            return answer
        time.sleep(0.1)
