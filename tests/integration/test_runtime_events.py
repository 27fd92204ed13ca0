"""GetContainerEvents over the wire: order, statuses, several clients, one that does not read."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver, driving, refused, wait_until
from triptych_linux import mounts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CREATED, STARTED = cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT
STOPPED, DELETED = cri.CONTAINER_STOPPED_EVENT, cri.CONTAINER_DELETED_EVENT


class Client:
    """A client of GetContainerEvents that reads in a thread."""

    def __init__(self, stub: Any) -> None:
        self.events: list[Any] = []
        self.call = stub.GetContainerEvents(cri.GetEventsRequest())
        self.call.initial_metadata()  # from here on nothing is missed
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        try:
            self.events.extend(self.call)
        except grpc.RpcError:
            return

    def of(self, *ids: str) -> list[tuple[str, int]]:
        """What was told of some pods and containers, in order."""
        found = list(self.events)
        return [(e.container_id, e.container_event_type) for e in found if e.container_id in ids]

    def close(self) -> None:
        self.call.cancel()
        self.thread.join(5)


@pytest.fixture
def driver(live_stack: Stack, live_image: str) -> Iterator[Driver]:
    with driving(live_stack, live_image) as made:
        yield made


def test_a_life_is_told_in_order_to_every_client(driver: Driver, live_stack: Stack) -> None:
    with live_stack.runtime() as one, live_stack.runtime() as two:
        clients = [Client(one), Client(two)]
        pod = driver.run("told")
        short = driver.launch(pod, driver.config("short", ("sh", "-c", "exit 4")))
        driver.wait_exited(short)
        killed = driver.launch(pod, "killed")
        driver.stop(killed)
        driver.remove(short)
        never_started = driver.create(pod, "never")
        driver.stop_pod(pod)
        driver.remove_pod(pod)
        ids = (pod.id, short, killed, never_started)
        wait_until("the pod's end was told", lambda: (pod.id, DELETED) in clients[1].of(*ids))
        wait_until("to the first one too", lambda: (pod.id, DELETED) in clients[0].of(*ids))
        for client in clients:
            told = client.of(*ids)
            assert told[:2] == [(pod.id, CREATED), (pod.id, STARTED)]
            assert client.of(short) == [(short, kind) for kind in (CREATED, STARTED, STOPPED, DELETED)]
            assert client.of(killed) == [(killed, kind) for kind in (CREATED, STARTED, STOPPED, DELETED)]
            assert client.of(never_started) == [(never_started, CREATED), (never_started, DELETED)]
            assert client.of(pod.id) == [(pod.id, kind) for kind in (CREATED, STARTED, STOPPED, DELETED)]
            assert told[-1] == (pod.id, DELETED)
            times = [event.created_at for event in client.events]
            assert times == sorted(times)
            check_statuses(client, pod.id, short)
            client.close()


def check_statuses(client: Client, pod: str, container: str) -> None:
    """Each event carries the pod and its containers as they were then."""
    by_kind = {e.container_event_type: e for e in client.events if e.container_id == container}
    states = {
        CREATED: cri.CONTAINER_CREATED,
        STARTED: cri.CONTAINER_RUNNING,
        STOPPED: cri.CONTAINER_EXITED,
    }
    for kind, state in states.items():
        event = by_kind[kind]
        assert event.pod_sandbox_status.id == pod
        assert event.pod_sandbox_status.state == cri.SANDBOX_READY
        status = next(s for s in event.containers_statuses if s.id == container)
        assert status.state == state
        assert (status.exit_code, status.reason) == ((4, "Error") if kind == STOPPED else (0, ""))
    assert container not in [s.id for s in by_kind[DELETED].containers_statuses]
    ends = [e for e in client.events if e.container_id == pod and e.container_event_type == STOPPED]
    assert ends[0].pod_sandbox_status.state == cri.SANDBOX_NOTREADY


@pytest.mark.parametrize("restarted", [False, True])
def test_a_pod_whose_init_dies_is_not_ready(driver: Driver, live_stack: Stack, restarted: bool) -> None:
    config, app = pod_config("headless"), driver.config("app")
    for security in (config.linux.security_context, app.linux.security_context):
        security.namespace_options.pid = cri.POD
    pod = driver.run(config)
    container = driver.launch(pod, app)
    if restarted:
        live_stack.kill("runtime")
        live_stack.start("runtime")
    with live_stack.runtime() as stub:
        stub.Version(cri.VersionRequest(), timeout=DEADLINE, wait_for_ready=True)
        again, client = Driver(stub, driver.image), Client(stub)
        os.kill(again.pod_info(pod)["pid"], signal.SIGKILL)
        wait_until("its end is told", lambda: client.of(pod.id) == [(pod.id, STOPPED)])
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id)
        assert stub.PodSandboxStatus(request, timeout=DEADLINE).status.state == cri.SANDBOX_NOTREADY
        again.wait_exited(container)
        again.stop_pod(pod)
        again.remove_pod(pod)
        wait_until("it is told to be gone", lambda: client.of(pod.id)[1:] == [(pod.id, DELETED)])
        client.close()


@pytest.mark.parametrize("seen_by", ["create", "start", "restart"])
def test_a_pod_whose_namespaces_were_unmounted_is_not_ready(
    driver: Driver, live_stack: Stack, seen_by: str
) -> None:
    """The files of the pins stay, and the kubelet would ask for containers in it for ever."""
    pod = driver.run("unmounted")
    created = driver.create(pod, "app")
    client = Client(driver.stub)
    for pin in (live_stack.state / "runtime" / "ns" / pod.id).iterdir():
        mounts.umount(pin)
    if seen_by == "restart":
        client.close()
        live_stack.stop("runtime")
        live_stack.start("runtime")
    else:
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
            driver.create(pod, "late") if seen_by == "create" else driver.start(created)
        assert pod.id in refusal.text
        wait_until("its end is told", lambda: client.of(pod.id) == [(pod.id, STOPPED)])
        client.close()
    with live_stack.runtime() as stub:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id)
        status = stub.PodSandboxStatus(request, timeout=DEADLINE, wait_for_ready=True).status
        assert status.state == cri.SANDBOX_NOTREADY
        Driver(stub, driver.image).clear()


def test_a_client_that_does_not_read_holds_up_nobody(driver: Driver, live_stack: Stack) -> None:
    with live_stack.runtime() as lazy, live_stack.runtime() as eager:
        sleeper = lazy.GetContainerEvents(cri.GetEventsRequest())
        sleeper.initial_metadata()
        client = Client(eager)
        pod = driver.run("many")
        ids = []
        for number in range(20):
            container = driver.launch(pod, driver.config(f"c{number}", ("true",)))
            driver.wait_exited(container)
            driver.remove(container)
            ids.append(container)
        wanted = [(i, kind) for i in ids for kind in (CREATED, STARTED, STOPPED, DELETED)]
        wait_until("all was told", lambda: client.of(*ids) == wanted)
        late = [next(sleeper) for _ in range(2 + len(wanted))]  # those of the pod come first
        assert [(e.container_id, e.container_event_type) for e in late[2:]] == wanted
        sleeper.cancel()
        client.close()
