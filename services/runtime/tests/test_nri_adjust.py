"""What plugins want, applied to a built container."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nri.v1alpha1 import nri_pb2
from nri.v1alpha1.nri_pb2 import ContainerAdjustment, KeyValue, Mount
from runtime.v1 import api_pb2
from triptych_dev.testing.nrifields import field_paths
from triptych_errors import Code
from triptych_linux.mounts import MountEntry
from triptych_oci import ContainerConfig as Image
from triptych_runtime.errors import AdjustmentRefused
from triptych_runtime.nri.adjust import adjust_spec
from triptych_runtime.spec import (
    ENVIRONMENT_PROGRAM,
    CgroupVersion,
    ContainerInputs,
    ContainerSpec,
    HandlerFeatures,
    HostFacts,
    NamespacePaths,
    RootfsView,
    SandboxContext,
    build_container_spec,
)
from triptych_runtime.spec.capabilities import KNOWN
from triptych_runtime.spec.inputs import Relabel
from triptych_runtime.spec.newer_fields import NewerField

V1 = HostFacts(bounding=KNOWN, cgroup_version=CgroupVersion.V1)
V2 = HostFacts(bounding=KNOWN)
CURRENT = HandlerFeatures(name="crun", version=(1, 24))
OLD = HandlerFeatures.of_version("crun version 1.8.1\n+SECCOMP\n")
PATHS = NamespacePaths(Path("/ns/net"), Path("/ns/ipc"), Path("/ns/uts"), Path("/ns/pid"))


def built(tmp_path: Path, **envs: bytes) -> ContainerSpec:
    config = api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"),
        image=api_pb2.ImageSpec(image="sha256:1"),
        command=["sh"],
        envs=[api_pb2.KeyValue(key=key, value=value) for key, value in envs.items()],
        mounts=[api_pb2.Mount(container_path="/data", host_path="/")],
        devices=[api_pb2.Device(host_path="/dev/null", permissions="rw")],
    )
    config.linux.resources.cpu_shares = 512
    config.linux.resources.cpu_quota = 50_000
    config.linux.resources.memory_limit_in_bytes = 1 << 20
    inputs = ContainerInputs(
        container_id="id",
        config=config,
        image=Image(),
        rootfs=tmp_path / "rootfs",
        files=RootfsView([]),
        bundle=tmp_path,
        volumes=tmp_path / "volumes",
        cgroups_path="/kubepods/id",
    )
    metadata = api_pb2.PodSandboxMetadata(name="pod", namespace="ns", uid="uid")
    sandbox = SandboxContext("sandbox", api_pb2.PodSandboxConfig(metadata=metadata), PATHS)
    return build_container_spec(V2, CURRENT, sandbox, inputs)


def on(*tags: str) -> Callable[[str], MountEntry]:
    """Every host path lies on a mount with these optional fields."""
    return lambda _path: MountEntry(1, 0, "8:1", "/", "/", "rw", tags, "ext4", "/dev/sda", "rw")


def adjusted(
    spec: ContainerSpec,
    adjustment: ContainerAdjustment,
    host: HostFacts = V2,
    handler: HandlerFeatures = CURRENT,
    cdi: tuple[Path, ...] = (),
    tags: tuple[str, ...] = ("shared:1",),
) -> ContainerSpec:
    return adjust_spec(spec, adjustment, host, handler, cdi, find_mount=on(*tags))


def adjustment(**fields: Any) -> ContainerAdjustment:
    """Of `linux_X` and other fields."""
    linux = {key.removeprefix("linux_"): fields.pop(key) for key in [*fields] if key.startswith("linux_")}
    if linux:
        fields["linux"] = nri_pb2.LinuxContainerAdjustment(**linux)
    return ContainerAdjustment(**fields)


def memory(field: str, value: Any) -> ContainerAdjustment:
    made = ContainerAdjustment()
    getattr(made.linux.resources.memory, field).value = value
    return made


def cpu(field: str, value: Any) -> ContainerAdjustment:
    made = ContainerAdjustment()
    getattr(made.linux.resources.cpu, field).value = value
    return made


def limited(**fields: Any) -> ContainerAdjustment:
    return adjustment(linux_resources=nri_pb2.LinuxResources(**fields))


def rdt(**fields: Any) -> ContainerAdjustment:
    return adjustment(linux_rdt=nri_pb2.LinuxRdt(**fields))


# Every field: what is wanted, where it is in the document, and what is there then. Values of cgroup v1 too,
# hence on a host of v1.

HOOK = nri_pb2.Hook(path="/hook", args=["hook", "x"], env=["A=1"], timeout=nri_pb2.OptionalInt(value=5))
OCI_HOOK = {"path": "/hook", "args": ["hook", "x"], "env": ["A=1"], "timeout": 5}
DEVICE = nri_pb2.LinuxDevice(
    path="/dev/x",
    type="b",
    major=8,
    minor=1,
    file_mode=nri_pb2.OptionalFileMode(value=0o100640),
    uid=nri_pb2.OptionalUInt32(value=1),
    gid=nri_pb2.OptionalUInt32(value=0),
)
SECCOMP = nri_pb2.LinuxSeccomp(
    default_action="SCMP_ACT_ERRNO",
    default_errno=nri_pb2.OptionalUInt32(value=38),
    architectures=["SCMP_ARCH_X86_64"],
    flags=["SECCOMP_FILTER_FLAG_LOG"],
    listener_path="/run/listener",
    listener_metadata="m",
    syscalls=[
        nri_pb2.LinuxSyscall(
            names=["read"],
            action="SCMP_ACT_ALLOW",
            errno_ret=nri_pb2.OptionalUInt32(value=1),
            args=[nri_pb2.LinuxSeccompArg(index=1, value=2, value_two=3, op="SCMP_CMP_EQ")],
        )
    ],
)
OCI_SECCOMP = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "architectures": ["SCMP_ARCH_X86_64"],
    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "listenerPath": "/run/listener",
    "listenerMetadata": "m",
    "syscalls": [
        {
            "names": ["read"],
            "action": "SCMP_ACT_ALLOW",
            "errnoRet": 1,
            "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_EQ"}],
        }
    ],
}
SCHEDULER = nri_pb2.LinuxScheduler(
    policy=nri_pb2.SCHED_DEADLINE,
    nice=-1,
    priority=2,
    flags=[nri_pb2.SCHED_FLAG_RECLAIM],
    runtime=3,
    deadline=4,
    period=5,
)
OCI_SCHEDULER = {
    "policy": "SCHED_DEADLINE",
    "nice": -1,
    "priority": 2,
    "flags": ["SCHED_FLAG_RECLAIM"],
    "runtime": 3,
    "deadline": 4,
    "period": 5,
}
RULE = nri_pb2.LinuxDeviceCgroup(allow=True, type="c", major=nri_pb2.OptionalInt64(value=10), access="r")
POLICY = nri_pb2.LinuxMemoryPolicy(mode=nri_pb2.MPOL_BIND, nodes="0-1", flags=[nri_pb2.MPOL_F_STATIC_NODES])
REMOVED = object()

WANTED: dict[str, tuple[ContainerAdjustment, str, Any]] = {
    "annotations": (adjustment(annotations={"k": "v"}), "annotations.k", "v"),
    "mounts": (
        adjustment(mounts=[Mount(destination="/proc", type="tmpfs", source="t", options=["ro"])]),
        "mounts.3",
        {"destination": "/proc", "type": "tmpfs", "source": "t", "options": ["ro"]},
    ),
    "env": (adjustment(env=[KeyValue(key="PATH", value="/p")]), "process.env.0", "PATH=/p"),
    "rlimits": (
        adjustment(rlimits=[nri_pb2.POSIXRlimit(type="RLIMIT_CORE", hard=2, soft=1)]),
        "process.rlimits",
        [{"type": "RLIMIT_CORE", "hard": 2, "soft": 1}],
    ),
    "CDI_devices": (
        adjustment(CDI_devices=[nri_pb2.CDIDevice(name="vendor.com/gpu=one")]),
        "process.env.2",
        "GPU=1",
    ),
    "args": (adjustment(args=["run", "me"]), "process.args", ["run", "me"]),
    "hooks.prestart": (adjustment(hooks=nri_pb2.Hooks(prestart=[HOOK])), "hooks.prestart", [OCI_HOOK]),
    "hooks.create_runtime": (
        adjustment(hooks=nri_pb2.Hooks(create_runtime=[HOOK])),
        "hooks.createRuntime",
        [OCI_HOOK],
    ),
    "hooks.create_container": (
        adjustment(hooks=nri_pb2.Hooks(create_container=[HOOK])),
        "hooks.createContainer",
        [OCI_HOOK],
    ),
    "hooks.start_container": (
        adjustment(hooks=nri_pb2.Hooks(start_container=[HOOK])),
        "hooks.startContainer",
        [OCI_HOOK],
    ),
    "hooks.poststart": (adjustment(hooks=nri_pb2.Hooks(poststart=[HOOK])), "hooks.poststart", [OCI_HOOK]),
    "hooks.poststop": (adjustment(hooks=nri_pb2.Hooks(poststop=[HOOK])), "hooks.poststop", [OCI_HOOK]),
    "linux.devices": (
        adjustment(linux_devices=[DEVICE]),
        "linux.devices.1",
        {
            "path": "/dev/x",
            "type": "b",
            "major": 8,
            "minor": 1,
            "fileMode": 0o640,
            "uid": 1,
            "gid": 0,
        },
    ),
    "linux.cgroups_path": (adjustment(linux_cgroups_path="/other"), "linux.cgroupsPath", "/other"),
    "linux.oom_score_adj": (
        adjustment(linux_oom_score_adj=nri_pb2.OptionalInt(value=-7)),
        "process.oomScoreAdj",
        -7,
    ),
    "linux.io_priority": (
        adjustment(
            linux_io_priority=nri_pb2.LinuxIOPriority(**{"class": nri_pb2.IOPRIO_CLASS_RT, "priority": 3})
        ),
        "process.ioPriority",
        {"class": "IOPRIO_CLASS_RT", "priority": 3},
    ),
    "linux.seccomp_policy": (adjustment(linux_seccomp_policy=SECCOMP), "linux.seccomp", OCI_SECCOMP),
    "linux.namespaces": (
        adjustment(linux_namespaces=[nri_pb2.LinuxNamespace(type="network", path="/other")]),
        "linux.namespaces.5",
        {"type": "network", "path": "/other"},
    ),
    "linux.sysctl": (adjustment(linux_sysctl={"kernel.x": "1"}), "linux.sysctl", {"kernel.x": "1"}),
    "linux.net_devices": (
        adjustment(linux_net_devices={"eth1": nri_pb2.LinuxNetDevice(name="data0")}),
        "linux.netDevices",
        {"eth1": {"name": "data0"}},
    ),
    "linux.scheduler": (adjustment(linux_scheduler=SCHEDULER), "process.scheduler", OCI_SCHEDULER),
    "linux.memory_policy": (
        adjustment(linux_memory_policy=POLICY),
        "linux.memoryPolicy",
        {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
    ),
    "linux.rdt.clos_id": (
        rdt(clos_id=nri_pb2.OptionalString(value="gold")),
        "linux.intelRdt.closID",
        "gold",
    ),
    "linux.rdt.schemata": (
        rdt(schemata=nri_pb2.OptionalRepeatedString(value=["L3:0=f"])),
        "linux.intelRdt.schemata",
        ["L3:0=f"],
    ),
    "linux.rdt.enable_monitoring": (
        rdt(enable_monitoring=nri_pb2.OptionalBool(value=True)),
        "linux.intelRdt.enableMonitoring",
        True,
    ),
    "linux.rdt.remove": (rdt(remove=True), "linux.intelRdt", REMOVED),
    "linux.resources.memory.limit": (memory("limit", 2 << 20), "linux.resources.memory.limit", 2 << 20),
    "linux.resources.memory.reservation": (
        memory("reservation", 7),
        "linux.resources.memory.reservation",
        7,
    ),
    "linux.resources.memory.swap": (memory("swap", 3 << 20), "linux.resources.memory.swap", 3 << 20),
    "linux.resources.memory.kernel": (memory("kernel", 7), "linux.resources.memory.kernel", 7),
    "linux.resources.memory.kernel_tcp": (memory("kernel_tcp", 7), "linux.resources.memory.kernelTCP", 7),
    "linux.resources.memory.swappiness": (memory("swappiness", 0), "linux.resources.memory.swappiness", 0),
    "linux.resources.memory.disable_oom_killer": (
        memory("disable_oom_killer", True),
        "linux.resources.memory.disableOOMKiller",
        True,
    ),
    "linux.resources.memory.use_hierarchy": (
        memory("use_hierarchy", True),
        "linux.resources.memory.useHierarchy",
        True,
    ),
    "linux.resources.cpu.shares": (cpu("shares", 7), "linux.resources.cpu.shares", 7),
    "linux.resources.cpu.quota": (cpu("quota", -1), "linux.resources.cpu.quota", -1),
    "linux.resources.cpu.period": (cpu("period", 7000), "linux.resources.cpu.period", 7000),
    "linux.resources.cpu.realtime_runtime": (
        cpu("realtime_runtime", 7),
        "linux.resources.cpu.realtimeRuntime",
        7,
    ),
    "linux.resources.cpu.realtime_period": (
        cpu("realtime_period", 7),
        "linux.resources.cpu.realtimePeriod",
        7,
    ),
    "linux.resources.cpu.cpus": (
        limited(cpu=nri_pb2.LinuxCPU(cpus="0-1")),
        "linux.resources.cpu.cpus",
        "0-1",
    ),
    "linux.resources.cpu.mems": (limited(cpu=nri_pb2.LinuxCPU(mems="0")), "linux.resources.cpu.mems", "0"),
    "linux.resources.hugepage_limits": (
        limited(hugepage_limits=[nri_pb2.HugepageLimit(page_size="2MB", limit=7)]),
        "linux.resources.hugepageLimits",
        [{"pageSize": "2MB", "limit": 7}],
    ),
    "linux.resources.blockio_class": (
        limited(blockio_class=nri_pb2.OptionalString()),
        "linux.resources.blockIO",
        REMOVED,
    ),
    "linux.resources.rdt_class": (
        limited(rdt_class=nri_pb2.OptionalString()),
        "linux.intelRdt",
        REMOVED,
    ),
    "linux.resources.unified": (
        limited(unified={"memory.high": "7"}),
        "linux.resources.unified",
        {"memory.high": "7"},
    ),
    "linux.resources.devices": (
        limited(devices=[RULE]),
        "linux.resources.devices.2",
        {"allow": True, "type": "c", "major": 10, "access": "r"},
    ),
    "linux.resources.pids": (
        limited(pids=nri_pb2.LinuxPids(limit=7)),
        "linux.resources.pids",
        {"limit": 7},
    ),
}


def at(document: Any, path: str) -> Any:
    for name in path.split("."):
        try:
            document = document[int(name) if name.isdigit() else name]
        except (KeyError, IndexError):
            return REMOVED
    return document


def test_no_field_is_forgotten() -> None:
    assert {*WANTED} == {*field_paths(ContainerAdjustment.DESCRIPTOR)}


@pytest.mark.parametrize("path", WANTED)
def test_a_field_is_applied(tmp_path: Path, path: str) -> None:
    spec = built(tmp_path)
    if WANTED[path][2] is REMOVED:
        spec.document["linux"]["intelRdt"] = {"closID": "silver"}
        spec.document["linux"]["resources"]["blockIO"] = {"weight": 7}
    before = copy.deepcopy(spec)
    edits = {"env": ["GPU=1"]}
    devices = [{"name": "one", "containerEdits": edits}]
    cdi = {"cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "devices": devices}
    (tmp_path / "gpu.json").write_text(json.dumps(cdi))
    wanted, place, value = WANTED[path]
    host = V2 if path == "linux.resources.unified" else V1
    assert at(spec.document, place) != value
    made = adjusted(spec, wanted, host, cdi=(tmp_path,))
    assert at(made.document, place) == value
    assert spec == before
    # What is wanted twice is there once.
    again = adjusted(made, wanted, host, cdi=(tmp_path,))
    if not path.startswith("hooks.") and path != "linux.resources.devices":
        assert again == made


def test_nothing_is_wanted(tmp_path: Path) -> None:
    spec = built(tmp_path)
    assert adjusted(spec, ContainerAdjustment()) is spec


# Environment


def test_variables_that_the_document_cannot_carry(tmp_path: Path) -> None:
    spec = built(tmp_path, RAW=b"\xff", OTHER=b"\xfe", TEXT=b"t")
    program = spec.document["process"]["args"][0]
    assert spec.raw_environment == (b"RAW=\xff", b"OTHER=\xfe")
    wanted = adjustment(
        env=[KeyValue(key="RAW", value="é"), KeyValue(key="-TEXT"), KeyValue(key="NEW", value="=")],
        args=["other"],
    )
    made = adjusted(spec, wanted)
    process = made.document["process"]
    assert process["args"] == [program, "other"]
    assert [e for e in process["env"] if e.startswith(("RAW", "TEXT", "NEW", "OTHER"))] == ["RAW=é", "NEW=="]
    assert made.raw_environment == (b"OTHER=\xfe",)
    (file,) = made.files
    assert file.path == tmp_path / ENVIRONMENT_PROGRAM
    assert b"OTHER=\xfe\0" in file.content
    assert b"RAW" not in file.content
    assert [m["destination"] for m in made.document["mounts"]].count(program) == 1


def test_no_such_variable_is_left(tmp_path: Path) -> None:
    spec = built(tmp_path, RAW=b"\xff")
    made = adjusted(spec, adjustment(env=[KeyValue(key="-RAW")]))
    assert made.document["process"]["args"] == ["sh"]
    assert (made.files, made.raw_environment) == ((), ())
    assert not any("triptych" in m["destination"] for m in made.document["mounts"])
    assert made.document["process"]["env"] == spec.document["process"]["env"]


def test_the_program_goes_where_there_is_room(tmp_path: Path) -> None:
    spec = built(tmp_path, RAW=b"\xff")
    made = adjusted(spec, adjustment(mounts=[Mount(destination="/dev", type="bind", source="/dev")]))
    assert made.document["process"]["args"][0] == "/.triptych-env"


@pytest.mark.parametrize("key", ["", "A=B", "A\0"])
def test_no_name_of_a_variable(tmp_path: Path, key: str) -> None:
    with pytest.raises(AdjustmentRefused, match="^adjustment by NRI plugins: envs: .* no name"):
        adjusted(built(tmp_path), adjustment(env=[KeyValue(key=key, value="v")]))


# Mounts


def destinations(spec: ContainerSpec) -> list[str]:
    return [mount["destination"] for mount in spec.document["mounts"]]


def test_mounts_by_depth(tmp_path: Path) -> None:
    spec = built(tmp_path)
    wanted = [
        Mount(destination="/a/b/c", type="bind", source="/s"),
        Mount(destination="/data", type="tmpfs", source="tmpfs"),
        Mount(destination="-/dev/mqueue/"),
        Mount(destination="/a/b/", type="bind", source="/s", options=["rbind", "ro"]),
        Mount(destination="/z", type="bind", source="/s"),
    ]
    made = adjusted(spec, adjustment(mounts=wanted))
    order = destinations(made)
    assert [path.count("/") for path in order] == sorted(path.count("/") for path in order)
    assert {*order} == {*destinations(spec), "/a/b/c", "/a/b", "/z"} - {"/dev/mqueue"}
    assert len(order) == len({*order})
    by_path = {mount["destination"]: mount for mount in made.document["mounts"]}
    assert by_path["/data"] == {
        "destination": "/data",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": [],
    }
    assert by_path["/a/b"]["options"] == ["rbind", "ro"]
    assert by_path["/z"]["options"] == ["rbind"]


@pytest.mark.parametrize(
    ("options", "root"),
    [
        (["rprivate"], None),
        (["rslave"], "rslave"),
        (["rshared"], "rshared"),
        (["rslave", "rshared"], "rshared"),
        (["rshared", "rslave"], "rshared"),
        (["rshared", "rprivate"], "rshared"),
    ],
)
def test_the_root_propagates_as_its_mounts_do(tmp_path: Path, options: list[str], root: str | None) -> None:
    mounts = [
        Mount(destination=f"/m{index}", type="bind", source="/s", options=["rbind", option])
        for index, option in enumerate(options)
    ]
    made = adjusted(built(tmp_path), adjustment(mounts=mounts))
    assert made.document["linux"].get("rootfsPropagation") == root


@pytest.mark.parametrize(("option", "tags"), [("rshared", ("master:1",)), ("rslave", ())])
def test_a_source_that_does_not_propagate(tmp_path: Path, option: str, tags: tuple[str, ...]) -> None:
    mount = Mount(destination="/m", type="bind", source="/s", options=[option])
    with pytest.raises(AdjustmentRefused, match="mounts: /m: host path /s is mounted on /, which is not a"):
        adjusted(built(tmp_path), adjustment(mounts=[mount]), tags=tags)


@pytest.mark.parametrize("destination", ["m", "/", "-/", "/..", ""])
def test_no_place_for_a_mount(tmp_path: Path, destination: str) -> None:
    with pytest.raises(AdjustmentRefused, match="mounts: .* is no place for a mount"):
        adjusted(built(tmp_path), adjustment(mounts=[Mount(destination=destination)]))


def test_relabelled_where_there_are_labels(tmp_path: Path) -> None:
    mount = Mount(destination="/m", type="bind", source="/s", options=["relabel", "ro"])
    spec = built(tmp_path)
    made = adjusted(spec, adjustment(mounts=[mount]))
    assert made.document["mounts"][-1]["destination"] != "/m"
    assert [m["options"] for m in made.document["mounts"] if m["destination"] == "/m"] == [["rbind", "ro"]]
    assert made.relabels == ()
    spec.document["linux"]["mountLabel"] = "label"
    assert adjusted(spec, adjustment(mounts=[mount])).relabels == (Relabel(Path("/s"), "label"),)


# Devices


def test_a_device_and_its_rule(tmp_path: Path) -> None:
    spec = built(tmp_path)
    assert [node["path"] for node in spec.document["linux"]["devices"]] == ["/dev/null"]
    null = nri_pb2.LinuxDevice(path="/dev/null", type="u", major=1, minor=5)
    linux = adjusted(spec, adjustment(linux_devices=[null])).document["linux"]
    assert linux["devices"] == [{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]
    assert linux["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rw"},
    ]
    gone = adjusted(spec, adjustment(linux_devices=[nri_pb2.LinuxDevice(path="-/dev/null")]))
    assert gone.document["linux"]["devices"] == []
    assert gone.document["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_another_node_of_a_removed_device(tmp_path: Path) -> None:
    again = nri_pb2.LinuxDevice(path="/dev/again", type="c", major=1, minor=3)
    gone = nri_pb2.LinuxDevice(path="-/dev/null")
    linux = adjusted(built(tmp_path), adjustment(linux_devices=[again, gone])).document["linux"]
    assert [node["path"] for node in linux["devices"]] == ["/dev/again"]
    assert [rule["access"] for rule in linux["resources"]["devices"]] == ["rwm", "rw", "rw"]


# Removal


def test_what_is_marked_is_removed(tmp_path: Path) -> None:
    spec = built(tmp_path)
    first = adjusted(
        spec,
        adjustment(
            annotations={"a": "1"},
            linux_sysctl={"kernel.x": "1"},
            linux_net_devices={"eth1": nri_pb2.LinuxNetDevice()},
        ),
    )
    assert first.document["linux"]["netDevices"] == {"eth1": {}}
    second = adjusted(
        first,
        adjustment(
            annotations={"-a": ""},
            linux_sysctl={"-kernel.x": ""},
            linux_net_devices={"-eth1": nri_pb2.LinuxNetDevice()},
        ),
        handler=OLD,
    )
    assert second == spec
    spaces = adjustment(linux_namespaces=[nri_pb2.LinuxNamespace(type="-ipc")])
    kinds = {space["type"] for space in adjusted(spec, spaces).document["linux"]["namespaces"]}
    assert kinds == {"mount", "network", "uts", "pid", "cgroup"}


def test_none_takes_away(tmp_path: Path) -> None:
    spec = built(tmp_path)
    spec.document["process"] |= {"ioPriority": {}, "scheduler": {}}
    none = adjustment(linux_io_priority=nri_pb2.LinuxIOPriority(), linux_scheduler=nri_pb2.LinuxScheduler())
    made = adjusted(spec, none, handler=OLD).document["process"]
    assert not {"ioPriority", "scheduler"} & {*made}


def test_rdt_is_removed_before_it_is_set(tmp_path: Path) -> None:
    spec = built(tmp_path)
    spec.document["linux"]["intelRdt"] = {"closID": "silver", "enableCMT": True}
    gold = nri_pb2.OptionalString(value="gold")
    on_top = adjusted(spec, rdt(clos_id=gold)).document["linux"]["intelRdt"]
    assert on_top == {"closID": "gold", "enableCMT": True}
    assert adjusted(spec, rdt(clos_id=gold, remove=True)).document["linux"]["intelRdt"] == {"closID": "gold"}


# Resources


def test_a_limit_takes_swap_along(tmp_path: Path) -> None:
    both = memory("limit", 4 << 20)
    made = adjusted(built(tmp_path), both).document["linux"]["resources"]["memory"]
    assert made == {"limit": 4 << 20, "swap": 4 << 20}
    both.linux.resources.memory.swap.value = 6 << 20
    made = adjusted(built(tmp_path), both).document["linux"]["resources"]["memory"]
    assert made == {"limit": 4 << 20, "swap": 6 << 20}
    made = adjusted(built(tmp_path), memory("swap", 2 << 20)).document["linux"]["resources"]["memory"]
    assert made == {"limit": 1 << 20, "swap": 2 << 20}


def test_other_resources_stay(tmp_path: Path) -> None:
    spec = built(tmp_path)
    spec.document["linux"]["resources"]["hugepageLimits"] = [
        {"pageSize": "2MB", "limit": 1},
        {"pageSize": "1GB", "limit": 2},
    ]
    wanted = limited(hugepage_limits=[nri_pb2.HugepageLimit(page_size="2MB", limit=0)])
    wanted.linux.resources.cpu.quota.value = 0
    held = adjusted(spec, wanted).document["linux"]["resources"]
    assert held["cpu"] == {"shares": 512}
    assert held["hugepageLimits"] == [{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 2}]
    assert held["memory"] == spec.document["linux"]["resources"]["memory"]


def test_unlimited_processes(tmp_path: Path) -> None:
    spec = adjusted(built(tmp_path), limited(pids=nri_pb2.LinuxPids(limit=7)))
    assert (
        "pids"
        not in adjusted(spec, limited(pids=nri_pb2.LinuxPids(limit=-1))).document["linux"]["resources"]
    )


def test_scores_are_clamped(tmp_path: Path) -> None:
    host = HostFacts(bounding=KNOWN, oom_score_adj=10, may_lower_oom=False)
    wanted = adjustment(linux_oom_score_adj=nri_pb2.OptionalInt(value=-5))
    assert adjusted(built(tmp_path), wanted, host).document["process"]["oomScoreAdj"] == 10


def test_cgroup_v2_does_some_anyway(tmp_path: Path) -> None:
    for wanted in (memory("use_hierarchy", True), memory("disable_oom_killer", False)):
        assert adjusted(built(tmp_path), wanted) == built(tmp_path)


# Refused


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (
            limited(blockio_class=nri_pb2.OptionalString(value="slow")),
            "linux.resources.blockio_class: no cl",
        ),
        (limited(rdt_class=nri_pb2.OptionalString(value="gold")), "linux.resources.rdt_class: no classes"),
        (memory("swappiness", 0), "linux.resources.memory.swappiness: cgroup v2 has no such setting"),
        (memory("disable_oom_killer", True), "linux.resources.memory.disable_oom_killer: cgroup v2"),
        (cpu("realtime_runtime", 1), "linux.resources.cpu.realtime_runtime: cgroup v2"),
        (cpu("quota", 7), "resources.cpu_quota: 7 is below"),
        (cpu("period", (1 << 64) - 1), "resources.cpu_period: .* is not between"),
        (memory("swap", 7), "memory_swap_limit_in_bytes: 7 is below"),
        (limited(devices=[nri_pb2.LinuxDeviceCgroup(type="x")]), "linux.resources.devices: type 'x'"),
        (limited(devices=[nri_pb2.LinuxDeviceCgroup(access="x")]), "linux.resources.devices: permissions"),
        (adjustment(linux_oom_score_adj=nri_pb2.OptionalInt(value=2000)), "linux.oom_score_adj: 2000"),
        (adjustment(linux_devices=[nri_pb2.LinuxDevice(path="x")]), "linux.devices: 'x' is not an absolute"),
        (
            adjustment(linux_devices=[nri_pb2.LinuxDevice(path="/x", type="y")]),
            "linux.devices: /x: type 'y'",
        ),
        (adjustment(linux_namespaces=[nri_pb2.LinuxNamespace(type="net")]), "linux.namespaces: 'net'"),
        (adjustment(linux_seccomp_policy=nri_pb2.LinuxSeccomp()), "linux.seccomp_policy: default_action"),
        (adjustment(hooks=nri_pb2.Hooks(poststop=[nri_pb2.Hook(path="x")])), "hooks.poststop: 'x' is not"),
        (adjustment(rlimits=[nri_pb2.POSIXRlimit(type="nofile")]), "rlimits: 'nofile' is no type"),
        (
            adjustment(rlimits=[nri_pb2.POSIXRlimit(type="RLIMIT_CPU", soft=1)]),
            "RLIMIT_CPU: soft 1 is above",
        ),
        (adjustment(args=["", ""]), "cmd: no command"),
        (
            adjustment(linux_scheduler=nri_pb2.LinuxScheduler(policy=99)),  # type: ignore[arg-type]
            "linux.scheduler.policy: 99 is unknown",
        ),
        (
            adjustment(linux_memory_policy=nri_pb2.LinuxMemoryPolicy(flags=[99])),  # type: ignore[list-item]
            "linux.memory_policy.flags: 99 is unknown",
        ),
        (adjustment(CDI_devices=[nri_pb2.CDIDevice(name="x")]), "CDI device 'x'"),
        (adjustment(CDI_devices=[nri_pb2.CDIDevice(name="v.com/x=y")]), "CDI devices cannot be resolved"),
    ],
)
def test_what_cannot_be_honoured_is_named(tmp_path: Path, wanted: ContainerAdjustment, why: str) -> None:
    with pytest.raises(AdjustmentRefused, match=f"^adjustment by NRI plugins: .*{why}") as raised:
        adjusted(built(tmp_path), wanted)
    assert raised.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("linux.io_priority", NewerField.IO_PRIORITY),
        ("linux.scheduler", NewerField.SCHEDULER),
        ("linux.net_devices", NewerField.NET_DEVICES),
        ("linux.memory_policy", NewerField.MEMORY_POLICY),
        ("linux.rdt.clos_id", NewerField.INTEL_RDT),
        ("linux.rdt.schemata", NewerField.RDT_SCHEMATA),
        ("linux.rdt.enable_monitoring", NewerField.RDT_MONITORING),
    ],
)
def test_what_the_runtime_would_ignore(tmp_path: Path, path: str, field: NewerField) -> None:
    with pytest.raises(AdjustmentRefused, match=f"{field}: the OCI runtime crun 1.8.1 has no such field"):
        adjusted(built(tmp_path), WANTED[path][0], handler=OLD)


def test_no_seccomp(tmp_path: Path) -> None:
    without = HandlerFeatures(name="tiny", seccomp=False)
    with pytest.raises(AdjustmentRefused, match="linux.seccomp_policy: tiny has no seccomp"):
        adjusted(built(tmp_path), adjustment(linux_seccomp_policy=SECCOMP), handler=without)


def test_newer_fields_by_version_and_as_told() -> None:
    runc = "runc version 1.1.5+ds1\nlibseccomp: 2.5.4\n"
    lacks = HandlerFeatures.of_version(runc).ignored
    assert lacks == {*NewerField} - {NewerField.INTEL_RDT}
    assert HandlerFeatures.of_version("runc version 1.4.0\n").ignored == frozenset()
    assert HandlerFeatures.of_version("other version 0.1\n").ignored == frozenset()
    linux = {
        "intelRdt": {"enabled": False, "schemata": None},
        "netDevices": {"enabled": True},
        "memoryPolicy": {"modes": ["MPOL_BIND"]},
    }
    told = HandlerFeatures.of_features(json.dumps({"linux": linux}).encode(), runc).ignored
    gained = {NewerField.NET_DEVICES, NewerField.MEMORY_POLICY}
    assert told == (lacks | {NewerField.INTEL_RDT}) - gained
