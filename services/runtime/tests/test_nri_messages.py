"""Pods, containers and limits as NRI plugins are told of them."""

from __future__ import annotations

from typing import Any

from nri.v1alpha1 import nri_pb2 as nri
from runtime.v1 import api_pb2 as cri
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord, User
from triptych_runtime.nri.messages import container_message, pod_message

DOCUMENT: dict[str, Any] = {
    "annotations": {"io.kubernetes.cri.container-type": "container"},
    "process": {
        "args": ["/dev/.triptych-env", "sleep", "5"],
        "env": ["A=1", "B=\udcff"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20, "soft": 10}],
        "oomScoreAdj": -5,
    },
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/ns/net"}],
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0}
        ],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "resources": {
            "cpu": {"shares": 512, "quota": 0, "cpus": "0-1"},
            "memory": {"limit": 1 << 20, "swap": -1, "disableOOMKiller": False},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 7}],
            "pids": {"limit": 99},
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 0, "minor": 3},
            ],
            "unified": {"memory.high": "5"},
        },
    },
}


def container(**more: Any) -> ContainerRecord:
    config = cri.ContainerConfig(labels={"l": "1"}, annotations={"a": "2"})
    config.metadata.name = "main"
    config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.Localhost
    config.linux.security_context.seccomp.localhost_ref = "profile.json"
    config.CDI_devices.add(name="vendor.com/gpu=0")
    fields: dict[str, Any] = {
        "id": "c",
        "sandbox_id": "s",
        "phase": ContainerPhase.RUNNING,
        "config": config,
        "handler": "crun",
        "created_at": 1,
        "pid": 77,
        "cgroups_path": "/kubepods/c",
        "user": User(1000, 1001, (5, 6)),
    }
    return ContainerRecord(**fields | more)


def test_a_container_is_told_with_its_spec() -> None:
    told = container_message(container(), DOCUMENT)
    assert (told.id, told.pod_sandbox_id, told.name, told.pid) == ("c", "s", "main", 77)
    assert told.state == nri.CONTAINER_RUNNING
    assert dict(told.annotations) == {"a": "2", "io.kubernetes.cri.container-type": "container"}
    assert list(told.args) == ["sleep", "5"]
    assert list(told.env) == ["A=1", "B=\ufffd"]
    assert told.mounts == [nri.Mount(destination="/proc", type="proc", source="proc", options=["nosuid"])]
    assert told.rlimits == [nri.POSIXRlimit(type="RLIMIT_NOFILE", hard=20, soft=10)]
    assert told.user == nri.User(uid=1000, gid=1001, additional_gids=[5, 6])
    assert [device.name for device in told.CDI_devices] == ["vendor.com/gpu=0"]
    linux = told.linux
    assert (linux.cgroups_path, linux.oom_score_adj.value) == ("/kubepods/c", -5)
    assert linux.seccomp_profile.profile_type == nri.SecurityProfile.LOCALHOST
    assert [(each.type, each.path) for each in linux.namespaces] == [("pid", ""), ("network", "/run/ns/net")]
    [device] = linux.devices
    assert (device.major, device.file_mode.value, device.HasField("uid"), device.HasField("gid")) == (
        10,
        0o666,
        True,
        False,
    )


def test_limits_are_told_as_the_spec_has_them() -> None:
    told = container_message(container(), DOCUMENT).linux.resources
    assert (told.cpu.shares.value, told.cpu.cpus) == (512, "0-1")
    assert told.cpu.HasField("quota") and not told.cpu.HasField("period")
    assert (told.memory.limit.value, told.memory.swap.value) == (1 << 20, -1)
    assert told.memory.HasField("disable_oom_killer")
    assert (told.pids.limit, dict(told.unified)) == (99, {"memory.high": "5"})
    assert told.hugepage_limits == [nri.HugepageLimit(page_size="2MB", limit=7)]
    first, second = told.devices
    assert not first.allow and not first.HasField("major")
    assert second.HasField("major") and second.minor.value == 3


def test_a_container_whose_spec_is_gone_is_told_with_its_limits() -> None:
    limits = cri.LinuxContainerResources(memory_limit_in_bytes=5)
    told = container_message(container(resources=limits, phase=ContainerPhase.EXITED, exit_code=3), None)
    assert (told.state, told.exit_code) == (nri.CONTAINER_STOPPED, 3)
    assert told.linux.resources.memory.limit.value == 5 and not told.args


def test_a_pod_is_told_with_its_namespaces_and_addresses() -> None:
    config = cri.PodSandboxConfig(labels={"l": "1"})
    config.metadata.name, config.metadata.uid, config.metadata.namespace = "pod", "u", "ns"
    record = SandboxRecord(
        id="s",
        phase=SandboxPhase.READY,
        config=config,
        handler="runc",
        created_at=1,
        cgroup_parent="/kubepods/pod1",
        namespaces={"net": "/run/ns/s/net", "ipc": "/run/ns/s/ipc"},
        ips=("10.0.0.1", "fd00::1"),
        overhead=cri.LinuxContainerResources(cpu_shares=10),
    )
    told = pod_message(record)
    assert (told.name, told.uid, told.namespace, told.runtime_handler) == ("pod", "u", "ns", "runc")
    assert list(told.ips) == ["10.0.0.1", "fd00::1"]
    kinds = {each.type: each.path for each in told.linux.namespaces}
    assert kinds == {"network": "/run/ns/s/net", "ipc": "/run/ns/s/ipc"}
    assert told.linux.cgroup_parent == "/kubepods/pod1"
    assert told.linux.pod_overhead.cpu.shares.value == 10
    assert not told.linux.HasField("pod_resources")
