"""Fields of pods and containers that no other test sends: what becomes of each, or how it is refused."""

from __future__ import annotations

import os
import time

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.testing.driver import DEADLINE, Driver, refused, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


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


def test_a_debug_container_joins_its_target(driver: Driver) -> None:
    pod = driver.run("debugged")
    target = driver.launch(pod, "target")
    config = driver.config("debug")
    options = config.linux.security_context.namespace_options
    options.pid, options.target_id = cri.TARGET, target
    container = driver.launch(pod, config)
    assert driver.output(container, "cat", "/proc/1/cmdline").startswith("sh\0")
    assert driver.output(container, "readlink", "/proc/1/ns/pid") == driver.output(
        target, "readlink", "/proc/1/ns/pid"
    )
    # Created while the target runs, started when it does not: never into anybody else's namespace.
    late = driver.config("late")
    late.linux.security_context.CopyFrom(config.linux.security_context)
    waiting = driver.create(pod, late)
    driver.stop(container)
    driver.stop(target)
    with pytest.raises(grpc.RpcError):
        driver.start(waiting)
    assert driver.status(waiting).reason == "StartError"
    other = driver.run("other")
    late.metadata.attempt = 1
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        driver.create(pod, late)
    foreign = driver.launch(other, "foreign")
    late.linux.security_context.namespace_options.target_id = foreign
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        driver.create(pod, late)


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
