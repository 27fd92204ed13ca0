"""Resources, devices, namespaces and stop signals."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument, NotFound
from triptych_oci import ContainerConfig as Image
from triptych_runtime.spec import (
    CgroupVersion,
    ContainerInputs,
    HandlerFeatures,
    HostFacts,
    NamespacePaths,
    RootfsView,
    SandboxContext,
    devices,
    namespaces,
    resources,
    signals,
)

Limits = api_pb2.LinuxContainerResources
HOST = HostFacts()
V1 = HostFacts(cgroup_version=CgroupVersion.HYBRID)
MIB = 1 << 20


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(), {}),
        (
            Limits(cpu_shares=512, cpu_quota=50_000, cpu_period=100_000, cpuset_cpus="0-1", cpuset_mems="0"),
            {"cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-1", "mems": "0"}},
        ),
        (Limits(cpu_shares=1, cpu_quota=-1), {"cpu": {"shares": 2, "quota": -1}}),
        (Limits(cpu_shares=1 << 40), {"cpu": {"shares": 262144}}),
        (Limits(memory_limit_in_bytes=MIB), {"memory": {"limit": MIB, "swap": MIB}}),
        (
            Limits(memory_limit_in_bytes=MIB, memory_swap_limit_in_bytes=2 * MIB),
            {"memory": {"limit": MIB, "swap": 2 * MIB}},
        ),
        (
            Limits(memory_limit_in_bytes=MIB, memory_swap_limit_in_bytes=-1),
            {"memory": {"limit": MIB, "swap": -1}},
        ),
        (Limits(memory_swap_limit_in_bytes=-1), {"memory": {"swap": -1}}),
        (
            Limits(hugepage_limits=[api_pb2.HugepageLimit(page_size="2MB", limit=4 * MIB)]),
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
        ),
        (Limits(unified={"memory.high": "1M"}), {"unified": {"memory.high": "1M"}}),
    ],
)
def test_resources(limits: Limits, expected: dict[str, Any]) -> None:
    assert resources.build(limits, HOST) == expected


def test_controllers_that_this_host_lacks() -> None:
    bare = replace(HOST, swap_controller=False, hugetlb_controller=False)
    page = api_pb2.HugepageLimit
    quiet = Limits(
        memory_limit_in_bytes=MIB,
        memory_swap_limit_in_bytes=MIB,
        hugepage_limits=[page(page_size="2MB")],
    )
    assert resources.build(quiet, bare) == {"memory": {"limit": MIB}}
    with pytest.raises(FailedPrecondition, match="memory_swap_limit_in_bytes"):
        resources.build(Limits(memory_limit_in_bytes=MIB, memory_swap_limit_in_bytes=2 * MIB), bare)
    with pytest.raises(FailedPrecondition, match="hugetlb"):
        resources.build(Limits(hugepage_limits=[page(page_size="2MB", limit=1)]), bare)
    with pytest.raises(FailedPrecondition, match=r"unified: memory\.high needs cgroup v2.*hybrid"):
        resources.build(Limits(unified={"memory.high": "1"}), V1)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(cpu_period=999), "cpu_period"),
        (Limits(cpu_period=-5), "cpu_period"),
        (Limits(cpu_quota=1), "cpu_quota"),
        (Limits(cpu_shares=-1), "cpu_shares"),
        (Limits(memory_limit_in_bytes=-2), "memory_limit_in_bytes"),
        (Limits(memory_swap_limit_in_bytes=5), "without memory_limit_in_bytes"),
        (Limits(memory_limit_in_bytes=MIB, memory_swap_limit_in_bytes=5), "is below"),
        (Limits(memory_swap_limit_in_bytes=-7), "memory_swap_limit_in_bytes"),
        (Limits(oom_score_adj=1001), "oom_score_adj"),
        (Limits(cpuset_cpus="0;1"), "cpuset_cpus"),
        (Limits(cpuset_mems="a"), "cpuset_mems"),
        (Limits(hugepage_limits=[api_pb2.HugepageLimit(page_size="../x")]), "hugepage_limits"),
        (Limits(unified={"../memory.high": "1"}), "unified"),
        (Limits(unified={"memory": "1"}), "unified"),
    ],
)
def test_bad_resources(limits: Limits, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        resources.validate(limits, "where")
    assert str(caught.value).startswith("where.")


def test_oom_score() -> None:
    weak = HostFacts(oom_score_adj=-500, may_lower_oom=False)
    assert resources.oom_score_adj(Limits(oom_score_adj=-999), weak) == -500
    assert resources.oom_score_adj(Limits(oom_score_adj=3), weak) == 3
    assert resources.oom_score_adj(Limits(oom_score_adj=-999), HOST) == -999


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 63), (1 << 63) - 1), st.text(max_size=20))
def test_resources_build_or_refuse(memory: int, cpu: int, cpus: str) -> None:
    limits = Limits(
        memory_limit_in_bytes=memory, cpu_shares=cpu, cpu_quota=cpu, cpu_period=memory, cpuset_cpus=cpus
    )
    try:
        built = resources.build(limits, HOST)
    except InvalidArgument:
        return
    assert set(built) <= {"cpu", "memory"}


# Devices


def device_config(host: str, container: str = "", access: str = "rwm") -> api_pb2.ContainerConfig:
    device = api_pb2.Device(host_path=host, container_path=container, permissions=access)
    return api_pb2.ContainerConfig(devices=[device])


def build_devices(config: api_pb2.ContainerConfig, **more: bool) -> devices.Devices:
    options = {"privileged": False, "host_devices": True, "ownership": False, **more}
    return devices.build(config, **options)


def test_a_device() -> None:
    made = build_devices(device_config("/dev/null", "/dev/mine", "rw"))
    info = os.stat("/dev/null")
    assert made.nodes == [
        {
            "path": "/dev/mine",
            "type": "c",
            "major": 1,
            "minor": 3,
            "fileMode": info.st_mode & 0o7777,
            "uid": info.st_uid,
            "gid": info.st_gid,
        }
    ]
    assert made.rules == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
    ]


def test_a_device_by_symlink_has_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    made = build_devices(device_config(str(tmp_path / "link")))
    assert (made.nodes[0]["path"], made.nodes[0]["minor"]) == (str(tmp_path / "link"), 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_directory_of_devices(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "pts").mkdir()
    for name in ("one", "sub/two", "pts/three", "console"):
        os.mknod(tmp_path / name, 0o020600, os.makedev(1, 3))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("")
    made = build_devices(device_config(str(tmp_path), "/dev/all", "r"))
    assert [node["path"] for node in made.nodes] == ["/dev/all/one", "/dev/all/sub/two"]
    assert len(made.rules) == 3


def test_device_ownership() -> None:
    config = device_config("/dev/null")
    config.linux.security_context.run_as_user.value = 7
    made = build_devices(config, ownership=True)
    assert (made.nodes[0]["uid"], made.nodes[0]["gid"]) == (7, os.stat("/dev/null").st_gid)


def test_bad_devices(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFound, match="/dev/no-such does not exist"):
        build_devices(device_config("/dev/no-such"))
    with pytest.raises(InvalidArgument, match="is not a device"):
        build_devices(device_config(str(tmp_path / "file")))
    for access in ("", "rwx", "rr"):
        with pytest.raises(InvalidArgument, match="permissions"):
            devices.validate(device_config("/dev/null", access=access).devices)
    with pytest.raises(InvalidArgument, match="not an absolute path"):
        devices.validate(device_config("null").devices)


def test_privileged_devices() -> None:
    made = build_devices(device_config("/dev/null"), privileged=True)
    assert made.rules == [{"allow": True, "access": "rwm"}]
    paths = [node["path"] for node in made.nodes]
    assert paths.count("/dev/null") == 1
    assert "/dev/zero" in paths
    assert "/dev/console" not in paths
    assert len(build_devices(api_pb2.ContainerConfig(), privileged=True, host_devices=False).nodes) == 0


# Namespaces


def options(**modes: api_pb2.NamespaceMode.ValueType | str) -> api_pb2.NamespaceOption:
    return api_pb2.NamespaceOption(**modes)  # type: ignore[arg-type]


def pair(
    pod: api_pb2.NamespaceOption, container: api_pb2.NamespaceOption, paths: NamespacePaths, **more: Any
) -> tuple[SandboxContext, ContainerInputs]:
    sandbox = api_pb2.PodSandboxConfig()
    sandbox.linux.security_context.namespace_options.CopyFrom(pod)
    config = api_pb2.ContainerConfig()
    config.linux.security_context.namespace_options.CopyFrom(container)
    here = Path("/bundle")
    inputs = ContainerInputs("id", config, Image(), here, RootfsView([]), here, here, **more)
    return SandboxContext("pod", sandbox, paths), inputs


ALL = NamespacePaths(Path("/ns/net"), Path("/ns/ipc"), Path("/ns/uts"), Path("/ns/pid"), Path("/ns/user"))


def test_namespaces_of_a_pod() -> None:
    built = namespaces.build(*pair(options(), options(), ALL), HOST)
    assert built == [
        {"type": "mount"},
        {"type": "network", "path": "/ns/net"},
        {"type": "ipc", "path": "/ns/ipc"},
        {"type": "uts", "path": "/ns/uts"},
        {"type": "user", "path": "/ns/user"},
        {"type": "pid", "path": "/ns/pid"},
        {"type": "cgroup"},
    ]


def test_namespaces_of_the_host() -> None:
    node = options(network=api_pb2.NODE, pid=api_pb2.NODE, ipc=api_pb2.NODE)
    assert namespaces.build(*pair(node, node, NamespacePaths()), V1) == [{"type": "mount"}]


def test_cgroup_namespace_is_not_for_privileged() -> None:
    sandbox, inputs = pair(options(pid=api_pb2.CONTAINER), options(pid=api_pb2.CONTAINER), NamespacePaths())
    assert {"type": "cgroup"} in namespaces.build(sandbox, inputs, HOST)
    inputs.config.linux.security_context.privileged = True
    assert {"type": "cgroup"} not in namespaces.build(sandbox, inputs, HOST)


def test_pid_modes() -> None:
    def pid(
        pod: api_pb2.NamespaceOption, own: api_pb2.NamespaceOption, **more: Any
    ) -> dict[str, str] | None:
        paths = NamespacePaths(pid=Path("/ns/pid")) if pod.pid == api_pb2.POD else NamespacePaths()
        built = namespaces.build(*pair(pod, own, paths, **more), V1)
        return next((entry for entry in built if entry["type"] == "pid"), None)

    private, node = options(pid=api_pb2.CONTAINER), options(pid=api_pb2.NODE)
    target = options(pid=api_pb2.TARGET, target_id="x")
    assert pid(options(), private) == {"type": "pid"}
    assert pid(node, private) == {"type": "pid"}
    assert pid(node, options()) is None
    target_path = Path("/proc/9/ns/pid")
    assert pid(private, target, target_pid_namespace=target_path) == {
        "type": "pid",
        "path": str(target_path),
    }
    with pytest.raises(InvalidArgument, match="target_id"):
        pid(private, target)
    with pytest.raises(InvalidArgument, match="is NODE, but the pod"):
        pid(private, node)
    with pytest.raises(InvalidArgument, match="is POD, but the pod"):
        pid(private, options())
    with pytest.raises(FailedPrecondition, match="has lost the init"):
        namespaces.build(*pair(options(), options(), NamespacePaths()), V1)


def mapped(*ranges: tuple[int, int, int], **modes: Any) -> api_pb2.NamespaceOption:
    mappings = [api_pb2.IDMapping(container_id=c, host_id=h, length=n) for c, h, n in ranges]
    user = api_pb2.UserNamespace(mode=api_pb2.POD, uids=mappings, gids=mappings)
    return api_pb2.NamespaceOption(userns_options=user, **modes)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (options(network=api_pb2.CONTAINER), "network: mode CONTAINER"),
        (options(ipc=api_pb2.TARGET), "ipc: mode TARGET"),
        (options(pid=api_pb2.TARGET), "pid: mode TARGET is for containers"),
        (options(target_id="x"), "target_id is only"),
        (mapped(), "mode POD needs uids and gids"),
        (mapped((0, 1, 0)), "length 0"),
        (mapped((0, (1 << 32) - 1, 2)), "ends above"),
        (mapped((0, 100, 10), (10, 105, 10)), "overlap"),
        (mapped((0, 100, 10), (5, 200, 10)), "overlap"),
        (mapped((1, 100, 10)), "nothing is mapped to 0"),
        (mapped((0, 100, 10), pid=api_pb2.NODE), "pid: the host's"),
        (mapped((0, 100, 10), ipc=api_pb2.NODE), "ipc: the host's"),
    ],
)
def test_bad_namespace_options(wanted: api_pb2.NamespaceOption, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        namespaces.validate_options(wanted, "namespace_options", is_pod=True)


def test_user_namespace_rules() -> None:
    good = mapped((0, 100000, 65536), network=api_pb2.NODE)
    namespaces.validate_options(good, "x", is_pod=True)
    with pytest.raises(FailedPrecondition, match="userns_options: runtime old"):
        namespaces.validate_user_namespace_support(good, HandlerFeatures(name="old", user_namespaces=False))
    namespaces.validate_user_namespace_support(options(), HandlerFeatures(user_namespaces=False))
    namespaces.validate_same_user_namespace(good, options())
    with pytest.raises(InvalidArgument, match="differ"):
        namespaces.validate_same_user_namespace(good, mapped((0, 5, 5)))
    node = api_pb2.NamespaceOption(userns_options=api_pb2.UserNamespace(mode=api_pb2.NODE))
    namespaces.validate_options(node, "x", is_pod=True)
    node.userns_options.uids.add(length=1)
    with pytest.raises(InvalidArgument, match="mode NODE takes no mappings"):
        namespaces.validate_options(node, "x", is_pod=True)


def test_user_mappings() -> None:
    sandbox, _ = pair(mapped((0, 100000, 65536)), options(), ALL)
    entry = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert namespaces.user_mappings(sandbox) == {"uidMappings": entry, "gidMappings": entry}
    assert namespaces.user_mappings(pair(options(), options(), ALL)[0]) == {}


# Stop signals


def stop(value: api_pb2.Signal.ValueType, image: str = "") -> tuple[int, str, int]:
    made = signals.stop_signal(api_pb2.ContainerConfig(stop_signal=value), image)
    return made.number, made.name, int(made.reported)


def test_stop_signals() -> None:
    default = api_pb2.SIGNAL_RUNTIME_DEFAULT
    assert stop(default) == (15, "SIGTERM", api_pb2.SIGNAL_SIGTERM)
    assert stop(default, "SIGQUIT") == (3, "SIGQUIT", api_pb2.SIGNAL_SIGQUIT)
    assert stop(default, "9") == (9, "SIGKILL", api_pb2.SIGNAL_SIGKILL)
    assert stop(default, "rtmin+3") == (37, "SIGRTMIN+3", api_pb2.SIGNAL_SIGRTMINPLUS3)
    assert stop(api_pb2.SIGNAL_SIGUSR1, "SIGQUIT") == (10, "SIGUSR1", api_pb2.SIGNAL_SIGUSR1)
    assert stop(api_pb2.SIGNAL_SIGRTMAXMINUS1) == (63, "SIGRTMIN+29", api_pb2.SIGNAL_SIGRTMAXMINUS1)
    assert stop(api_pb2.SIGNAL_SIGCLD)[0] == signal.SIGCHLD


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "RTMIN+31", "-1", "１５"])
def test_bad_stop_signals(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no signal"):
        signals.parse(text)


def test_every_signal_of_the_cri_has_a_number() -> None:
    for value in api_pb2.Signal.values():
        if value != api_pb2.SIGNAL_RUNTIME_DEFAULT:
            number = signals.number_of_enum(value)
            assert signals.number_of_enum(signals.enum_of_number(number)) == number
    with pytest.raises(InvalidArgument, match="stop_signal: 99"):
        stop(99)  # type: ignore[arg-type]


@given(st.text(max_size=12))
def test_parse_signal_takes_anything(text: str) -> None:
    try:
        assert 1 <= signals.parse(text) <= 64
    except InvalidArgument as error:
        assert text in error.message or repr(text) in error.message
