"""NRI plugins beside the live daemons: told of everything in order, and heeded."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from nri.v1alpha1 import nri_pb2 as nri
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver, Pod, refused, wait_until
from triptych_dev.testing.nriplugin import NriPlugin, connected
from triptych_errors import FailedPrecondition
from triptych_linux import marked
from triptych_runtime.nri import installed
from triptych_ttrpc import ConnectionClosed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
def plugin(driver: Driver, live_stack: Stack) -> Iterator[NriPlugin]:
    with connected(socket_of(live_stack)) as made:
        yield made


def socket_of(stack: Stack) -> Path:
    return stack.state / "nri.sock"


def adjusting(change: nri.ContainerAdjustment) -> nri.CreateContainerResponse:
    return nri.CreateContainerResponse(adjust=change)


def memory_update(container: str, limit: int) -> nri.ContainerUpdate:
    update = nri.ContainerUpdate(container_id=container)
    update.linux.resources.memory.limit.value = limit
    return update


def containers(driver: Driver, pod: Pod) -> list[str]:
    filter = cri.ContainerFilter(pod_sandbox_id=pod.id)
    listed = driver.stub.ListContainers(cri.ListContainersRequest(filter=filter), timeout=DEADLINE)
    return [each.id for each in listed.containers]


def refuse(_: object) -> None:
    raise FailedPrecondition("not on this node")


def test_a_plugin_is_told_of_a_life_in_order(driver: Driver, plugin: NriPlugin) -> None:
    config = pod_config("told")
    config.labels["app"] = "told"
    pod = driver.run(config)
    container = driver.launch(pod, "main")
    assert plugin.last("RunPodSandbox").pod.name == "told"
    status = driver.stub.Status(cri.StatusRequest(verbose=True), timeout=DEADLINE)
    assert json.loads(status.info["config"])["nri"]["plugins"] == ["10-test"]
    asked = plugin.last("CreateContainer")
    assert (asked.pod.id, asked.pod.labels["app"], asked.container.name) == (pod.id, "told", "main")
    assert "trap" in asked.container.args[2]
    assert any(entry.startswith("PATH=") for entry in asked.container.env)
    assert "/etc/hosts" in [mount.destination for mount in asked.container.mounts]
    wait_until("the start is told", lambda: "PostStartContainer" in plugin.of(container))
    started = plugin.last("PostStartContainer").container
    assert started.state == nri.CONTAINER_RUNNING and started.pid == driver.container_info(container)["pid"]
    driver.stop(container)
    driver.remove(container)
    driver.stop_pod(pod)
    driver.stop_pod(pod)
    driver.remove_pod(pod)
    assert plugin.of(container) == [
        "CreateContainer",
        "ValidateContainerAdjustment",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "StopContainer",
        "RemoveContainer",
    ]
    assert plugin.of_pod(pod.id) == ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]


def test_an_exit_is_told_before_the_removal(driver: Driver, plugin: NriPlugin) -> None:
    pod = driver.run("ends")
    container = driver.launch(pod, driver.config("main", ("sh", "-c", "exit 3")))
    plugin.wait_for("StopContainer", container)
    ended = plugin.last("StopContainer").container
    assert (ended.exit_code, ended.status_reason, ended.state) == (3, "Error", nri.CONTAINER_STOPPED)


def test_what_plugins_want_is_in_the_container(
    driver: Driver, live_stack: Stack, plugin: NriPlugin, tmp_path: Path
) -> None:
    (tmp_path / "note").write_text("from the plugin\n")
    tmp_path.chmod(0o755)

    def first(request: nri.CreateContainerRequest) -> nri.CreateContainerResponse:
        change = nri.ContainerAdjustment()
        change.env.add(key="ADDED", value="by a plugin")
        change.env.add(key="-GONE")
        change.mounts.add(
            destination="/plugin", type="bind", source=str(tmp_path), options=["rbind", "ro", "rprivate"]
        )
        change.rlimits.add(type="RLIMIT_MSGQUEUE", hard=321, soft=123)
        change.linux.oom_score_adj.value = 777
        change.linux.resources.memory.limit.value = 48 << 20
        device = change.linux.devices.add(path="/dev/also-null", type="c", major=1, minor=3)
        device.file_mode.value = 0o666
        return adjusting(change)

    def second(request: nri.CreateContainerRequest) -> nri.CreateContainerResponse:
        seen = [entry for entry in request.container.env if entry.startswith("ADDED=")]
        change = nri.ContainerAdjustment()
        change.env.add(key="SEEN", value=",".join(seen))
        return adjusting(change)

    plugin.answers["CreateContainer"] = first
    with connected(socket_of(live_stack), "later", "20") as later:
        later.answers["CreateContainer"] = second
        config = driver.config("main")
        config.envs.add(key="GONE", value=b"x")
        container = driver.launch(driver.run("wanted"), config)
    environment = driver.output(container, "env").splitlines()
    assert {"ADDED=by a plugin", "SEEN=ADDED=by a plugin"} <= set(environment)
    assert not [entry for entry in environment if entry.startswith("GONE=")]
    assert driver.output(container, "cat", "/plugin/note") == "from the plugin\n"
    driver.output(container, "touch", "/plugin/x", code=1)
    [limit] = [
        line for line in driver.output(container, "cat", "/proc/1/limits").splitlines() if "msgq" in line
    ]
    assert limit.split()[3:5] == ["123", "321"]
    assert driver.output(container, "cat", "/proc/1/oom_score_adj") == "777\n"
    driver.output(container, "sh", "-c", "echo gone > /dev/also-null")
    reported = driver.status(container).resources.linux
    assert (reported.memory_limit_in_bytes, reported.oom_score_adj) == (48 << 20, 777)


def test_plugins_that_want_the_same_thing(driver: Driver, live_stack: Stack, plugin: NriPlugin) -> None:
    def want(request: nri.CreateContainerRequest) -> nri.CreateContainerResponse:
        change = nri.ContainerAdjustment()
        change.env.add(key="MINE", value="x")
        return adjusting(change)

    pod = driver.run("conflict")
    plugin.answers["CreateContainer"] = want
    with connected(socket_of(live_stack), "later", "20") as later:
        later.answers["CreateContainer"] = want
        with pytest.raises(grpc.RpcError) as refusal:
            driver.create(pod, "main")
    assert "10-test" in str(refusal.value) and "20-later" in str(refusal.value)
    assert containers(driver, pod) == []
    driver.launch(pod, "main")


@pytest.mark.parametrize("method", ["CreateContainer", "StartContainer"])
def test_a_plugin_that_is_against_a_container(driver: Driver, plugin: NriPlugin, method: str) -> None:
    pod = driver.run("refused")
    plugin.answers[method] = refuse
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        driver.launch(pod, "main")
    assert "10-test" in refusal.text and "not on this node" in refusal.text
    [container] = [request.container.id for name, request in plugin.told if name == "CreateContainer"]
    if method == "CreateContainer":
        assert containers(driver, pod) == []
        assert plugin.of(container) == ["CreateContainer", "StopContainer", "RemoveContainer"]
    else:
        assert driver.status(container).reason == "StartError"
        plugin.wait_for("StopContainer", container)
    del plugin.answers[method]
    config = driver.config("main")
    config.metadata.attempt = 1
    driver.launch(pod, config)


def test_a_plugin_that_is_against_a_pod(driver: Driver, plugin: NriPlugin) -> None:
    plugin.answers["RunPodSandbox"] = refuse
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
        driver.run("unwanted")
    assert "not on this node" in refusal.text
    [pod] = [request.pod.id for name, request in plugin.told if name == "RunPodSandbox"]
    assert plugin.of_pod(pod) == ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]
    listed = driver.stub.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=DEADLINE).items
    assert pod not in [each.id for each in listed]
    del plugin.answers["RunPodSandbox"]
    driver.run("unwanted")


def test_a_validator_has_the_last_word(driver: Driver, live_stack: Stack, plugin: NriPlugin) -> None:
    def want(request: nri.CreateContainerRequest) -> nri.CreateContainerResponse:
        change = nri.ContainerAdjustment()
        change.annotations["wanted"] = "yes"
        return adjusting(change)

    def judge(
        request: nri.ValidateContainerAdjustmentRequest,
    ) -> nri.ValidateContainerAdjustmentResponse:
        owner = request.owners.owners[request.container.id].compound[nri.Annotations].owners["wanted"]
        return nri.ValidateContainerAdjustmentResponse(reject=True, reason=f"{owner} wants too much")

    pod = driver.run("judged")
    plugin.answers["CreateContainer"] = want
    events = [nri.VALIDATE_CONTAINER_ADJUSTMENT]
    with connected(socket_of(live_stack), "judge", "90", events) as validator:
        validator.answers["ValidateContainerAdjustment"] = judge
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
            driver.create(pod, "main")
        assert "10-test wants too much" in refusal.text
        assert [name for name, _ in validator.told].count("CreateContainer") == 0
    driver.create(pod, "main")


def test_limits_change_as_plugins_want_it(driver: Driver, plugin: NriPlugin) -> None:
    pod = driver.run("limits")
    first, second = (driver.launch(pod, driver.config(name, memory_bytes=64 << 20)) for name in ("a", "b"))

    def limit(container: str) -> int:
        return int(driver.status(container).resources.linux.memory_limit_in_bytes)

    def answer(request: nri.UpdateContainerRequest) -> nri.UpdateContainerResponse:
        assert request.linux_resources.memory.limit.value == 96 << 20
        updates = [memory_update(first, 80 << 20), memory_update(second, 70 << 20)]
        return nri.UpdateContainerResponse(update=updates)

    plugin.answers["UpdateContainer"] = answer
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=96 << 20)
    driver.stub.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=first, linux=wanted), timeout=DEADLINE
    )
    assert (limit(first), limit(second)) == (80 << 20, 70 << 20)
    assert plugin.of(first)[-1] == "PostUpdateContainer"
    failed = plugin.update(memory_update(first, 90 << 20), memory_update("0" * 64, 1 << 20))
    assert limit(first) == 90 << 20
    assert [update.container_id for update in failed] == ["0" * 64]


def test_a_plugin_that_comes_later_is_told_what_there_is(
    driver: Driver, live_stack: Stack, plugin: NriPlugin
) -> None:
    pod = driver.run("there")
    running, created = driver.launch(pod, "runs"), driver.create(pod, "waits")
    ended = driver.launch(pod, driver.config("ends", ("true",)))
    driver.wait_exited(ended)
    with connected(socket_of(live_stack), "later", "20") as later:
        told = later.last("Synchronize")
        states = {each.id: each.state for each in told.containers}
        assert pod.id in [each.id for each in told.pods]
        assert states[running] == nri.CONTAINER_RUNNING and states[created] == nri.CONTAINER_CREATED
        assert ended not in states
        assert next(each for each in told.containers if each.id == running).args


def test_a_plugin_that_hangs_is_dropped_and_delays_nobody_for_long(
    driver: Driver, live_stack: Stack, plugin: NriPlugin
) -> None:
    hangs = [True]

    def hang(_: object) -> None:
        wait_until("it is let go", lambda: not hangs[0], 60)

    plugin.answers["CreateContainer"] = hang
    pod = driver.run("hangs")
    try:
        container = driver.launch(pod, "main")
        wait_until("the plugin is dropped", lambda: not plugin.connected)
        assert driver.status(container).state == cri.CONTAINER_RUNNING
    finally:
        hangs[0] = False


def test_an_update_within_an_event_that_it_waits_for(driver: Driver, plugin: NriPlugin) -> None:
    """As with the peers the plugin is dropped; but it holds nobody up, and what it asked for is done."""

    def start(request: nri.StartContainerRequest) -> None:
        with pytest.raises(ConnectionClosed):
            plugin.update(memory_update(request.container.id, 80 << 20))

    plugin.answers["StartContainer"] = start
    pod = driver.run("within")
    container = driver.create(pod, driver.config("main", memory_bytes=64 << 20))
    driver.start(container)
    assert driver.status(container).state == cri.CONTAINER_RUNNING
    wait_until("the plugin is dropped", lambda: not plugin.connected)
    wait_until(
        "the limit changes",
        lambda: driver.status(container).resources.linux.memory_limit_in_bytes == 80 << 20,
    )
    driver.launch(pod, "other")


def test_a_cgroup_of_its_own(driver: Driver, plugin: NriPlugin) -> None:
    def put_into(path: str) -> None:
        change = nri.ContainerAdjustment()
        change.linux.cgroups_path = path
        plugin.answers["CreateContainer"] = lambda _: adjusting(change)

    pod = driver.run("cgroups")
    first = driver.launch(pod, "first")
    path = plugin.last("CreateContainer").container.linux.cgroups_path
    for taken in (path, f"{path}/below", "relative/path", f"/{path}/../.."):
        put_into(taken)
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
            driver.create(pod, "second")
        assert "linux.cgroups_path" in refusal.text
    assert driver.status(first).state == cri.CONTAINER_RUNNING
    put_into(f"{path}-own")
    second = driver.launch(pod, driver.config("second", memory_bytes=64 << 20))
    process = Path("/proc", str(driver.container_info(second)["pid"]), "cgroup")
    assert f"{path}-own".rpartition(":")[2] in process.read_text()
    wanted = cri.LinuxContainerResources(memory_limit_in_bytes=96 << 20)
    driver.stub.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=second, linux=wanted), timeout=DEADLINE
    )
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        driver.create(pod, "third")
    driver.stop(second)
    driver.remove(second)
    driver.launch(pod, "third")
    assert driver.status(first).state == cri.CONTAINER_RUNNING


def test_a_plugin_older_than_0_12_is_told_by_state_changes(driver: Driver, plugin: NriPlugin) -> None:
    plugin.missing = {"RunPodSandbox", "StartContainer"}
    pod = driver.run("old")
    container = driver.launch(pod, "main")
    changes = [request.event for name, request in plugin.told if name == "StateChange"]
    assert changes == [nri.RUN_POD_SANDBOX, nri.START_CONTAINER]
    assert plugin.last("StateChange").container.id == container


def test_only_what_a_plugin_asked_for(driver: Driver, live_stack: Stack) -> None:
    with connected(socket_of(live_stack), events=[nri.STOP_CONTAINER]) as plugin:
        container = driver.launch(driver.run("few"), "main")
        driver.stop(container)
        plugin.wait_for("StopContainer")
        assert [name for name, _ in plugin.told] == ["Configure", "Synchronize", "StopContainer"]


def test_names_that_cannot_be(driver: Driver, live_stack: Stack) -> None:
    for name, index in (("a b", "10"), ("", "10"), ("fine", "1"), ("fine", "x0")):
        with pytest.raises(Exception, match="NRI plugin"), connected(socket_of(live_stack), name, index):
            pass


@dataclass
class Site:
    """A stack with plugins that its daemon starts: those that `install` made before."""

    stack: Stack
    plugins: Path
    notes: Path

    def install(self, name: str, script: str) -> None:
        program = self.plugins / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def running(self) -> list[int]:
        """PIDs of what the daemon started as plugins, and of what these have started."""
        found = marked.find(installed.MARK, (str(self.stack.state / "runtime"),), lambda _: True)
        return [process.pid for process in found]

    def wait_for_plugin(self) -> None:
        wait_until(
            "the plugin is synchronized",
            lambda: self.notes.exists() and "Synchronize" in self.notes.read_text(),
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    plugins, configs, notes = tmp_path / "nri", tmp_path / "nri.d", tmp_path / "notes"
    plugins.mkdir()
    configs.mkdir()
    (configs / "installed.conf").write_text(str(notes))
    # It is a Python program with a long list of imports.
    settings = {
        "nri": {
            "plugin_dir": str(plugins),
            "plugin_config_dir": str(configs),
            "registration_timeout": 5.0 * PATIENCE,
        }
    }
    stack = Stack(tmp_path / "stack", f"nri{os.getpid() % 10000}", "10.93.0.0/16", {"runtime": settings})
    stack.write_configuration()
    made = Site(stack, plugins, notes)
    yield made
    for pid in made.running():
        os.kill(pid, signal.SIGKILL)


PLUGIN = f"{sys.executable} -m triptych_dev.testing.nriplugin"


def test_an_installed_plugin_is_there_from_the_first_container(live_image: str, site: Site) -> None:
    site.install("05-installed", f"exec {PLUGIN}")
    site.install("no-plugin", "")
    with site.stack.serving(live_image), site.stack.runtime() as stub:
        site.wait_for_plugin()
        made = Driver(stub, live_image)
        made.run("installed")
        wait_until("the pod is told", lambda: "RunPodSandbox" in site.notes.read_text())
        made.clear()
    assert not site.running()


def test_installed_plugins_that_are_no_plugins_end_and_keep_nobody(live_image: str, site: Site) -> None:
    site.install("05-crashes", "exit 3")
    site.install("06-closes", 'eval "exec $NRI_PLUGIN_SOCKET>&-"; exec sleep 100000')
    site.install("07-missing", "")
    (site.plugins / "07-missing").write_text("#!/no/such/interpreter\n")
    site.install("08-installed", f"exec {PLUGIN}")
    with site.stack.serving(live_image), site.stack.runtime() as stub:
        site.wait_for_plugin()
        wait_until("only the plugin is there", lambda: len(site.running()) == 1)
        made = Driver(stub, live_image)
        made.run("installed")
        made.clear()
    assert not site.running()


def test_installed_plugins_of_a_killed_daemon_end(live_image: str, site: Site) -> None:
    site.install("05-installed", f"{PLUGIN}; exec sleep 100000")
    with site.stack.serving(live_image):
        site.wait_for_plugin()
        site.stack.kill("runtime")
        left = site.running()
        assert left
        site.notes.unlink()
        site.stack.start("runtime")
        site.wait_for_plugin()
        assert not set(left) & set(site.running())
    assert not site.running()


def test_a_daemon_killed_after_plugins_were_asked(live_image: str, site: Site) -> None:
    site.install("05-installed", f"exec {PLUGIN}")
    with site.stack.serving(live_image):
        site.stack.stop("runtime")
        site.stack.start("runtime", env={"TRIPTYCH_FAULT": "create_container.nri"})
        with site.stack.runtime() as stub:
            made = Driver(stub, live_image)
            pod = made.run("killed")
            with pytest.raises(grpc.RpcError):
                made.create(pod, "main")
        site.stack.wait_for_death("runtime")
        site.stack.start("runtime")
        with site.stack.runtime() as stub:
            again = Driver(stub, live_image)
            assert containers(again, pod) == []
            again.pods.append(pod)
            again.launch(pod, "main")
            again.clear()
