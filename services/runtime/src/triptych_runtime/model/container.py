"""The record of one container."""

from __future__ import annotations

import enum

import msgspec
from runtime.v1 import api_pb2


class ContainerPhase(enum.Enum):
    """How far a container has come. CREATING and REMOVING exist only while a step runs, or after a crash."""

    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    REMOVING = "removing"


class ExitReason(enum.Enum):
    """`ContainerStatus.reason` of an exited container, in the words of the peers."""

    COMPLETED = "Completed"
    ERROR = "Error"
    OOM_KILLED = "OOMKilled"
    START_ERROR = "StartError"
    UNKNOWN = "Unknown"


_STATES = {
    ContainerPhase.CREATING: api_pb2.CONTAINER_CREATED,
    ContainerPhase.CREATED: api_pb2.CONTAINER_CREATED,
    ContainerPhase.STARTING: api_pb2.CONTAINER_CREATED,
    ContainerPhase.RUNNING: api_pb2.CONTAINER_RUNNING,
    ContainerPhase.EXITED: api_pb2.CONTAINER_EXITED,
    ContainerPhase.REMOVING: api_pb2.CONTAINER_EXITED,
}


class User(msgspec.Struct, frozen=True):
    """The user that the container's first process runs as, resolved against the image's own files."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A container; replaced as a whole when something changes.

    :param config: the request's configuration, never mutated.
    :param handler: name of the runtime handler that runs it (resolved, never "").
    :param created_at, started_at, finished_at: Unix time in nanoseconds, 0 for not yet.
    :param pid: the container's first process, 0 before it runs; with its start time in clock ticks.
    :param monitor_pid: its conmon, 0 before it runs.
    :param cgroups_path: `linux.cgroupsPath` of its OCI spec.
    :param mounts: what ContainerStatus reports.
    :param resources: the limits in force, after updates.
    :param image_volumes: keys at the image daemon of the image volumes that it holds.
    """

    id: str
    sandbox_id: str
    phase: ContainerPhase
    config: api_pb2.ContainerConfig
    handler: str
    created_at: int
    image_id: str = ""
    image_ref: str = ""
    log_path: str = ""
    cgroups_path: str = ""
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0
    start_ticks: int = 0
    monitor_pid: int = 0
    user: User = User()
    stop_signal: int = 15
    mounts: tuple[api_pb2.Mount, ...] = ()
    resources: api_pb2.LinuxContainerResources | None = None
    image_volumes: tuple[str, ...] = ()
    size_limit: int = 0
    restored_from: str = ""

    @property
    def name(self) -> str:
        return self.config.metadata.name

    @property
    def key(self) -> str:
        """What makes a container unique within the node: its sandbox, name and attempt."""
        meta = self.config.metadata
        return f"{self.sandbox_id}_{meta.name}_{meta.attempt}"

    @property
    def state(self) -> int:
        """The state that the CRI knows."""
        if self.phase is ContainerPhase.REMOVING and not self.finished_at:
            return api_pb2.CONTAINER_CREATED
        return _STATES[self.phase]

    @property
    def visible(self) -> bool:
        """Whether lists show it: once its creation is complete, until nothing of it is left.

        One whose removal failed half way is still shown, as exited: the kubelet then removes it again.
        """
        return self.phase is not ContainerPhase.CREATING

    @property
    def running(self) -> bool:
        return self.phase is ContainerPhase.RUNNING
