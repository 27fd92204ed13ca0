"""Fields of pods and containers that no other test sends: what becomes of each, or how it is refused."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.testing.driver import DEADLINE, Driver, refused, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

GROUPS = Path("/sys/fs/cgroup")
UNIFIED = (GROUPS / "cgroup.controllers").exists()


def memory_limit(group: str) -> int:
    """What the kernel says of a cgroup's memory."""
    v2 = GROUPS / group.lstrip("/") / "memory.max"
    v1 = GROUPS / "memory" / group.lstrip("/") / "memory.limit_in_bytes"
    text = (v2 if UNIFIED else v1).read_text().strip()
    return 1 << 62 if text == "max" else int(text)


def memory_group(driver: Driver, container: str, controller: str = "memory") -> str:
    """The cgroup of a container where memory, or another controller, is counted."""
    lines = Path(f"/proc/{driver.container_info(container)['pid']}/cgroup").read_text().splitlines()
    return next(
        group for _, names, group in (line.split(":", 2) for line in lines) if controller in names or UNIFIED
    )


def test_host_namespaces(driver: Driver) -> None:
    config = pod_config("hosts", host_network=True)
    options = config.linux.security_context.namespace_options
    options.pid = options.ipc = cri.NODE
    pod = driver.run(config)
    app = driver.config("app")
    app.linux.security_context.namespace_options.CopyFrom(options)
    container = driver.launch(pod, app)
    for name in ("pid", "ipc", "net", "uts"):
        seen = driver.output(container, "readlink", f"/proc/self/ns/{name}").strip()
        assert seen == os.readlink(f"/proc/self/ns/{name}"), name
    status = driver.stub.PodSandboxStatus(
        cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id), timeout=DEADLINE
    )
    assert status.status.network.ip == ""
    reported = status.status.linux.namespaces.options
    assert (reported.network, reported.pid, reported.ipc) == (cri.NODE, cri.NODE, cri.NODE)
    driver.stop(container)
    assert driver.status(container).state == cri.CONTAINER_EXITED


@pytest.fixture
def parent(driver: Driver) -> Iterator[str]:
    """A cgroup parent in the form of the node's driver."""
    name = f"triptychfields{os.getpid()}"
    answer = driver.stub.RuntimeConfig(cri.RuntimeConfigRequest(), timeout=DEADLINE)
    systemd = answer.linux.cgroup_driver == cri.SYSTEMD
    yield f"{name}.slice" if systemd else f"/{name}/pod"
    driver.clear()
    if systemd:
        subprocess.run(["systemctl", "stop", f"{name}.slice"], check=False, capture_output=True, timeout=30)
    for hierarchy in (GROUPS, *GROUPS.iterdir()):
        for directory in (hierarchy / name / "pod", hierarchy / name):
            if directory.is_dir():
                directory.rmdir()


def test_a_cgroup_parent_is_the_clients(driver: Driver, parent: str) -> None:
    config = pod_config("parented", cgroup_parent=parent)
    config.linux.resources.memory_limit_in_bytes = 64 << 20  # the kubelet sets it, and nobody else
    pod = driver.run(config)
    container = driver.launch(pod, "app")
    assert driver.container_info(container)["cgroupsPath"].startswith(parent)
    group = memory_group(driver, container)
    assert f"/{parent.strip('/')}/" in group
    assert memory_limit(os.path.dirname(group)) > 1 << 50
    wrong = pod_config("wrong", cgroup_parent="/a/b" if parent.endswith(".slice") else "a.slice")
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        driver.run(wrong)
    assert "cgroup_parent" in refusal.text


def test_limits_of_a_pod_whose_cgroup_is_ours(driver: Driver) -> None:
    config = pod_config("limited")
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    config.linux.overhead.memory_limit_in_bytes = 16 << 20
    pod = driver.run(config)
    container = driver.launch(pod, "app")
    group = os.path.dirname(memory_group(driver, container))
    assert memory_limit(group) == 80 << 20
    request = cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod.id)
    request.resources.memory_limit_in_bytes = 128 << 20
    driver.stub.UpdatePodSandboxResources(request, timeout=DEADLINE)
    assert memory_limit(group) == 144 << 20
    request.overhead.memory_limit_in_bytes = 32 << 20
    driver.stub.UpdatePodSandboxResources(request, timeout=DEADLINE)
    assert memory_limit(group) == 160 << 20
    request.resources.cpu_period = 5
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        driver.stub.UpdatePodSandboxResources(request, timeout=DEADLINE)
    assert "cpu_period" in refusal.text


def test_cpus_memory_nodes_and_huge_pages(driver: Driver) -> None:
    pod = driver.run("sets")
    config = driver.config("app")
    limits = config.linux.resources
    limits.cpuset_cpus = limits.cpuset_mems = "0"
    container = driver.launch(pod, config)
    status = driver.output(container, "grep", "_allowed_list", "/proc/1/status").split()
    assert status == ["Cpus_allowed_list:", "0", "Mems_allowed_list:", "0"]
    reported = driver.status(container).resources.linux
    assert (reported.cpuset_cpus, reported.cpuset_mems) == ("0", "0")
    huge = driver.config("huge")
    huge.linux.resources.hugepage_limits.add(page_size="2MB", limit=4 << 20)
    try:
        container = driver.launch(pod, huge)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, error
        assert "hugepage_limits" in str(error)
        return
    path = memory_group(driver, container, "hugetlb").lstrip("/")
    names = (GROUPS / "hugetlb" / path / "hugetlb.2MB.limit_in_bytes", GROUPS / path / "hugetlb.2MB.max")
    assert [int(name.read_text()) for name in names if name.exists()] == [4 << 20]
    limit = driver.status(container).resources.linux.hugepage_limits[0]
    assert (limit.page_size, limit.limit) == ("2MB", 4 << 20)


def test_profiles_old_and_new(driver: Driver, tmp_path: Path) -> None:
    pod = driver.run("profiles")
    profile = tmp_path / "profile.json"
    rules = '[{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]'
    profile.write_text(f'{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {rules}}}')
    for old, mode in (("unconfined", "0"), ("runtime/default", "2"), (f"localhost/{profile}", "2")):
        config = driver.config(f"old-{mode}-{len(old)}")
        config.linux.security_context.seccomp_profile_path = old
        container = driver.launch(pod, config)
        assert driver.output(container, "grep", "Seccomp:", "/proc/1/status").split()[1] == mode, old
    driver.output(container, "mkdir", "/x", code=1)
    deprecated, typed = driver.config("armoured"), driver.config("armoured")
    deprecated.linux.security_context.apparmor_profile = "localhost/no-such-profile"
    typed.linux.security_context.apparmor.profile_type = cri.SecurityProfile.Localhost
    typed.linux.security_context.apparmor.localhost_ref = "no-such-profile"
    for config in (deprecated, typed):
        with pytest.raises(grpc.RpcError) as error:
            driver.create(pod, config)
        assert error.value.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
        assert "apparmor" in str(error.value).lower()
    config = driver.config("labelled")
    config.linux.security_context.selinux_options.level = "not a level"
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        driver.create(pod, config)
    assert "level" in refusal.text
    for field in ("seccomp", "apparmor"):
        bad = pod_config("bad")
        getattr(bad.linux.security_context, field).profile_type = cri.SecurityProfile.Localhost
        with pytest.raises(grpc.RpcError) as error:
            driver.run(bad)
        assert field in str(error.value).lower()


def test_devices_and_their_permissions(driver: Driver) -> None:
    pod = driver.run("devices")
    config = driver.config("app")
    config.devices.add(host_path="/dev/null", container_path="/dev/mine", permissions="r")
    config.devices.add(host_path="/dev/full", permissions="rw")  # under its own name
    container = driver.launch(pod, config)
    driver.output(container, "sh", "-c", "test -c /dev/mine && : </dev/mine")
    assert "No space" in driver.output(container, "sh", "-c", "{ echo x >/dev/full; } 2>&1; true")
    for device, permissions, name in (
        ("/dev/no-such", "rwm", "/dev/no-such"),
        ("/dev/null", "rx", "'rx'"),
        ("/dev/null", "", "permissions"),
    ):
        bad = driver.config("bad")
        bad.devices.add(host_path=device, container_path="/dev/bad", permissions=permissions)
        with pytest.raises(grpc.RpcError) as error:
            driver.create(pod, bad)
        assert name in str(error.value)


def test_a_stop_signal_and_a_grace(driver: Driver) -> None:
    pod = driver.run("signals")
    waits = "while :; do sleep 1000 & wait $!; done"
    config = driver.config("told", ("sh", "-c", f"trap 'exit 7' USR2; touch /ready; {waits}"))
    config.stop_signal = cri.SIGNAL_SIGUSR2
    told = driver.launch(pod, config)
    deaf = driver.launch(pod, driver.config("deaf", ("sh", "-c", f"trap '' TERM; touch /ready; {waits}")))
    wait_until("a trap is set", lambda: "ready" in driver.output(told, "ls", "/"))
    wait_until("the other too", lambda: "ready" in driver.output(deaf, "ls", "/"))
    driver.stop(told, 50)
    assert (driver.status(told).exit_code, driver.status(told).reason) == (7, "Error")
    begun = time.monotonic()
    driver.stop(deaf, 1)
    assert time.monotonic() - begun >= 1
    assert driver.status(deaf).exit_code == 137


def test_what_names_the_image(driver: Driver) -> None:
    pod = driver.run("names")
    config = driver.config("app")
    config.image.user_specified_image = "what-the-user-wrote:1"
    config.image.annotations["note"] = "1"
    config.image.runtime_handler = driver.handler
    container = driver.launch(pod, config)
    status = driver.status(container)
    assert status.image.user_specified_image == "what-the-user-wrote:1"
    assert status.image_id.startswith("sha256:")
    listed = driver.stub.ListContainers(cri.ListContainersRequest(), timeout=DEADLINE).containers
    assert [(c.id, c.image_id, c.image_ref) for c in listed] == [
        (container, status.image_id, status.image_ref)
    ]


def test_what_the_node_tells_of_itself(driver: Driver) -> None:
    version = driver.stub.Version(cri.VersionRequest(version="v1"), timeout=DEADLINE)
    assert (version.runtime_name, version.runtime_api_version) == ("triptych", "v1")
    assert version.runtime_version
    status = driver.stub.Status(cri.StatusRequest(), timeout=DEADLINE)
    handlers = {handler.name: handler.features for handler in status.runtime_handlers}
    assert handlers[driver.handler].recursive_read_only_mounts
    assert handlers[driver.handler].user_namespaces
    assert handlers[""] in (handlers["crun"], handlers["runc"])
    features = status.features
    assert features.supplemental_groups_policy
    assert features.user_namespaces_host_network
    assert features.mount_options
