"""What a kubelet does, in few words: pods and containers over the two CRI endpoints."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from runtime.v1 import api_pb2 as cri
from runtime.v1 import api_pb2_grpc
from triptych.image.v1 import image_pb2_grpc

_OPTIONS = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
]


@dataclass(slots=True)
class Kubelet:
    """Both endpoints, as stubs; use `connect`.

    :param admin: the image daemon's own service, for pulls with progress.
    """

    runtime: Any
    images: Any
    admin: Any


@asynccontextmanager
async def connect(runtime_socket: str, image_socket: str) -> AsyncIterator[Kubelet]:
    """Connect to the two sockets; give the same path twice for a node with one endpoint."""
    async with (
        grpc.aio.insecure_channel(f"unix:{runtime_socket}", options=_OPTIONS) as runtime,
        grpc.aio.insecure_channel(f"unix:{image_socket}", options=_OPTIONS) as images,
    ):
        yield Kubelet(
            api_pb2_grpc.RuntimeServiceStub(runtime),
            api_pb2_grpc.ImageServiceStub(images),
            image_pb2_grpc.ImageAdminServiceStub(images),
        )


def pod_config(
    name: str,
    *,
    log_directory: str = "",
    cgroup_parent: str = "",
    namespace: str = "default",
    host_network: bool = False,
    ports: Mapping[int, int] | None = None,
    labels: Mapping[str, str] | None = None,
) -> cri.PodSandboxConfig:
    """A pod as the kubelet asks for it.

    :param ports: node port to container port.
    """
    mode = cri.NODE if host_network else cri.POD
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=name, uid=f"uid-{name}-{time.time_ns()}", namespace=namespace),
        hostname="" if host_network else name,
        log_directory=log_directory,
        dns_config=cri.DNSConfig(servers=["10.96.0.10"], searches=["cluster.local"], options=["ndots:5"]),
        port_mappings=[
            cri.PortMapping(host_port=node, container_port=port) for node, port in (ports or {}).items()
        ],
        labels={
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": namespace,
            "app": name,
            **(labels or {}),
        },
    )
    config.linux.cgroup_parent = cgroup_parent
    options = config.linux.security_context.namespace_options
    options.network, options.pid, options.ipc = mode, cri.CONTAINER, cri.POD
    return config


def container_config(
    name: str,
    image: str,
    command: Sequence[str] = (),
    *,
    stdin: bool = False,
    tty: bool = False,
    env: Mapping[str, str] | None = None,
    mounts: Sequence[cri.Mount] = (),
    memory_bytes: int = 0,
    pod: str = "",
) -> cri.ContainerConfig:
    """A container as the kubelet asks for it; it logs to NAME/0.log.

    :param pod: name of its pod, for the labels that crictl shows.
    """
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=name),
        image=cri.ImageSpec(image=image),
        command=command,
        envs=[cri.KeyValue(key=key, value=value.encode()) for key, value in (env or {}).items()],
        mounts=mounts,
        labels={
            "io.kubernetes.container.name": name,
            "io.kubernetes.pod.name": pod,
            "io.kubernetes.pod.namespace": "default",
        },
        log_path=f"{name}/0.log",
        stdin=stdin,
        tty=tty,
    )
    config.linux.resources.memory_limit_in_bytes = memory_bytes
    options = config.linux.security_context.namespace_options
    options.network, options.pid, options.ipc = cri.POD, cri.CONTAINER, cri.POD
    return config


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a CRI log."""

    time: str
    stream: str
    whole: bool
    text: str


def parse_log(text: str) -> list[LogLine]:
    """The lines of a CRI log file."""
    found = []
    for line in text.splitlines():
        moment, stream, tag, content = line.split(" ", 3)
        found.append(LogLine(moment, stream, tag.startswith("F"), content))
    return found
