"""The settings of the runtime daemon: runtime.toml."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from triptych_service import Reload, ServiceSettings, Table, setting

from triptych_runtime.network import NetworkSettings
from triptych_runtime.nri.settings import NriSettings


class CgroupDriverSetting(enum.Enum):
    """Who makes cgroups."""

    AUTO = "auto"
    CGROUPFS = "cgroupfs"
    SYSTEMD = "systemd"


class ConmonLogLevel(enum.Enum):
    """What conmon tells of itself."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class HandlerSettings(Table):
    """`[handlers.NAME]`"""

    enabled: bool = setting(True, "Pods may ask for it; `false` takes away `crun` or `runc`.")
    path: str = setting(
        "", "The OCI runtime: an absolute path, or a name looked up in PATH; empty means NAME."
    )
    root: str = setting("", "Its state directory (`--root`); empty means `STATE/oci/NAME`.")
    annotations: tuple[str, ...] = setting(
        (),
        "Annotations of pods and containers that it gets to see in the spec, as patterns such as "
        '`"run.oci.*"`.',
    )
    privileged_host_devices: bool = setting(
        True, "Privileged containers get every device of the host; a virtual machine had better not."
    )
    cgroup_writable: bool = setting(
        False, "/sys/fs/cgroup is writable in containers that are not privileged; for cgroup v2."
    )
    no_new_keyring: bool = setting(
        False,
        "Containers share the daemon's session keyring, and so each other's keys, instead of getting one "
        "each; for an OCI runtime or a kernel that cannot make them.",
    )


class DeadlineSettings(Table):
    """`[deadlines]`, in seconds"""

    create: Annotated[float, msgspec.Meta(gt=0)] = setting(
        240.0,
        "One whole RunPodSandbox, CreateContainer or StartContainer, whatever its caller's deadline.",
        reload=Reload.LIVE,
    )
    oci_runtime: Annotated[float, msgspec.Meta(gt=0)] = setting(60.0, "One call of an OCI runtime.")
    monitor: Annotated[float, msgspec.Meta(gt=0)] = setting(60.0, "conmon until the container is created.")
    kill: Annotated[float, msgspec.Meta(gt=0)] = setting(
        10.0, "From SIGKILL until a container counts as stuck.", reload=Reload.LIVE
    )
    streaming: Annotated[float, msgspec.Meta(gt=0)] = setting(
        10.0, "How long Exec, Attach and PortForward wait for the streaming daemon.", reload=Reload.LIVE
    )


class ContainerSettings(Table):
    """`[containers]`"""

    seccomp_profile: str = setting(
        "/usr/share/containers/seccomp.json",
        "The profile behind RuntimeDefault, in the form of containers-common.",
    )
    seccomp_localhost_dir: str = setting(
        "/var/lib/kubelet/seccomp", "Where Localhost profiles with a relative name lie."
    )
    restrict_oom_score_adj: bool = setting(
        True, "Raise an oom_score_adj that this daemon may not set to the least one that it may."
    )
    unprivileged_ports: bool = setting(
        True, "net.ipv4.ip_unprivileged_port_start=0 in pods with an own network."
    )
    unprivileged_ping: bool = setting(True, "net.ipv4.ping_group_range open in pods with an own network.")
    log_size_max: int = setting(
        0, "Bytes at which conmon starts a log file anew; 0 leaves rotation to the kubelet."
    )
    exec_sync_output_bytes: Annotated[int, msgspec.Meta(ge=1024)] = setting(
        16 << 20,
        "Bytes kept of each output stream of ExecSync. The kubelet and crictl refuse answers above 16 MiB, "
        "as two full streams are: 8388352 keeps every answer within.",
    )
    exec_sync_drain: Annotated[float, msgspec.Meta(ge=0)] = setting(
        0.5, "Seconds that ExecSync reads on for a child that holds the output after the process ended."
    )
    size_limit_annotation: str = setting(
        "triptych.dev/writable-layer-size",
        "Annotation of a container or pod that limits its writable layer, a quantity such as `2Gi`.",
    )
    device_ownership: bool = setting(
        False,
        "Devices of a container belong to its user and group instead of the host's owner "
        "(containerd's device_ownership_from_security_context).",
        reload=Reload.LIVE,
    )
    cdi_dirs: tuple[str, ...] = setting(("/etc/cdi", "/var/run/cdi"), "Where CDI specs are.")
    shm_size: int = setting(64 << 20, "Bytes of a pod's /dev/shm.")
    checkpoint: bool = setting(
        True, "Allow CheckpointContainer, CheckpointPod and RestorePod where CRIU is installed."
    )


class Settings(ServiceSettings):
    """The whole of runtime.toml."""

    root: str = setting("/var/lib/triptych/runtime", "Directory of what survives a reboot.")
    state: str = setting("/run/triptych/runtime", "Directory of what must not survive a reboot; on tmpfs.")
    image_socket: str = setting("/run/triptych/image.sock", "The image daemon.")
    streaming_socket: str = setting("/run/triptych/streaming.sock", "The streaming daemon.")
    conmon: str = setting("conmon", "The monitor: an absolute path, or a name looked up in PATH.")
    conmon_log_level: ConmonLogLevel = setting(ConmonLogLevel.ERROR, "conmon's own log level.")
    init: str = setting("catatonit", "Static init of pods that share their PID namespace.")
    cgroup_driver: CgroupDriverSetting = setting(
        CgroupDriverSetting.AUTO, "`systemd`, `cgroupfs`, or `auto`: systemd where it is the init."
    )
    favor_cgroup_moves: bool = setting(
        False,
        "Mount cgroup2 with favordynmods (Linux 6.0): starts and execs are some milliseconds faster, every "
        "fork and exit on the node is a little slower; some kernels keep to it until the next boot.",
    )
    default_handler: str = setting(
        "", "Handler of pods that name none; empty means the first that works, crun before runc."
    )
    handlers: dict[str, HandlerSettings] = setting(
        {"crun": HandlerSettings(), "runc": HandlerSettings()},
        "Runtime handlers by name. `crun` and `runc` are there without being named, and stay beside others.",
    )
    network: NetworkSettings = setting(NetworkSettings(), "The pod network.")
    containers: ContainerSettings = setting(ContainerSettings(), "Defaults and limits of containers.")
    nri: NriSettings = setting(NriSettings(), "Plugins of the node (Node Resource Interface).")
    deadlines: DeadlineSettings = setting(DeadlineSettings(), "How long things may take.")
