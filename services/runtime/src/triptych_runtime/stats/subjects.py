"""What statistics are taken of: the facts that a collector needs about a pod or a container."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from runtime.v1 import api_pb2

from triptych_runtime.cgroups import Cgroup


@dataclass(frozen=True, slots=True)
class ContainerSubject:
    """A container to be measured.

    :param attributes: goes into the answer as it is; may be a shared message.
    :param cgroup: its cgroup; one that is gone leaves CPU, memory, swap and IO unset.
    :param pid: its first process, 0 when it does not run.
    :param started_at: Unix time in nanoseconds, 0 for never.
    :param image: the reference that its client gave, a label of its metrics.
    :param resources: the limits in force, for the spec metrics.
    """

    attributes: api_pb2.ContainerAttributes
    cgroup: Cgroup
    pid: int = 0
    started_at: int = 0
    image: str = ""
    resources: api_pb2.LinuxContainerResources | None = None

    @property
    def id(self) -> str:
        return self.attributes.id


@dataclass(frozen=True, slots=True)
class PodSubject:
    """A pod sandbox to be measured.

    :param cgroup: the cgroup of its `cgroup_parent`.
    :param netns: path of its network namespace; empty when it has the node's, whose counters are no pod's.
    :param containers: its running containers.
    :param init_pid: its init process, 0 when it has none.
    """

    attributes: api_pb2.PodSandboxAttributes
    cgroup: Cgroup
    netns: str = ""
    containers: tuple[ContainerSubject, ...] = ()
    init_pid: int = 0
    created_at: int = 0

    @property
    def id(self) -> str:
        return self.attributes.id


@dataclass(frozen=True, slots=True)
class LayerUsage:
    """Disk usage of a container's writable layer.

    :param timestamp: when it was measured, Unix time in nanoseconds.
    :param mountpoint: the directory that CRI's FilesystemIdentifier names.
    """

    used_bytes: int
    inodes_used: int
    timestamp: int
    mountpoint: str


@dataclass(frozen=True, slots=True)
class InterfaceCounters:
    """Counters of one network interface since it was made."""

    name: str
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


LayerReader = Callable[[Sequence[str]], Awaitable[Mapping[str, LayerUsage]]]
"""Usage of writable layers by container ID (RootfsService.RootfsUsage); may be slow, may leave some out."""
