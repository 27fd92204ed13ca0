"""The record of one pod sandbox."""

from __future__ import annotations

import enum

import msgspec
from runtime.v1 import api_pb2


class SandboxPhase(enum.Enum):
    """How far a sandbox has come. CREATING and REMOVING exist only while a step runs, or after a crash."""

    CREATING = "creating"
    READY = "ready"
    NOT_READY = "notready"
    REMOVING = "removing"


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A pod sandbox; replaced as a whole when something changes.

    :param config: the request's configuration, never mutated.
    :param created_at: Unix time in nanoseconds.
    :param handler: the runtime handler that the request named, "" for the default one.
    :param namespaces: pinned namespaces: kind ("net", "ipc", "uts", "pid", "user") to path.
    :param ips: the pod's addresses, the primary one first.
    :param owns_cgroup: the pod's cgroup was made here (the request named no parent).
    :param init_pid: the init process of a shared PID namespace, 0 for none; with its start time in ticks.
    :param network_ready: the CNI network was set up and not yet given back.
    :param restored_from: the checkpoint that RestorePod made it from, "" for an ordinary one.
    :param restoring: RestorePod has not come to its end: after a crash it is undone.
    """

    id: str
    phase: SandboxPhase
    config: api_pb2.PodSandboxConfig
    handler: str
    created_at: int
    cgroup_parent: str = ""
    owns_cgroup: bool = False
    namespaces: dict[str, str] = {}
    ips: tuple[str, ...] = ()
    network_ready: bool = False
    init_pid: int = 0
    init_start_ticks: int = 0
    selinux_process_label: str = ""
    selinux_mount_label: str = ""
    overhead: api_pb2.LinuxContainerResources | None = None
    resources: api_pb2.LinuxContainerResources | None = None
    restored_from: str = ""
    restoring: bool = False

    @property
    def key(self) -> str:
        """What makes a pod sandbox unique: name, namespace, uid and attempt."""
        meta = self.config.metadata
        return f"{meta.name}_{meta.namespace}_{meta.uid}_{meta.attempt}"

    @property
    def state(self) -> int:
        """The state that the CRI knows."""
        ready = self.phase is SandboxPhase.READY
        return api_pb2.SANDBOX_READY if ready else api_pb2.SANDBOX_NOTREADY

    @property
    def visible(self) -> bool:
        """Whether lists show it: once its creation is complete, until nothing of it is left.

        One whose removal failed half way is still shown, as not ready: the kubelet then removes it again.
        """
        return self.phase is not SandboxPhase.CREATING

    @property
    def options(self) -> api_pb2.NamespaceOption:
        """The namespace options of the pod."""
        return self.config.linux.security_context.namespace_options

    @property
    def host_network(self) -> bool:
        return self.options.network == api_pb2.NODE
