"""ExecSync with real OCI runtimes: output, limits, timeouts that leave nothing alive."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from runtime.v1 import api_pb2_grpc
from triptych_dev.kubelet import pod_config
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_dev.testing.driver import DEADLINE, Driver, refused, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LIMIT = 16 << 20


@pytest.fixture
def container(driver: Driver) -> str:
    return driver.launch(driver.run("exec"), "app")


def run(driver: Driver, container: str, script: str, timeout: int = 0) -> cri.ExecSyncResponse:
    request = cri.ExecSyncRequest(container_id=container, cmd=["sh", "-c", script], timeout=timeout)
    answer: cri.ExecSyncResponse = driver.stub.ExecSync(request, timeout=DEADLINE)
    return answer


def sleepers(seconds: int) -> list[int]:
    """Processes of the node that sleep for exactly so long."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def test_output_and_exit_code(driver: Driver, container: str) -> None:
    done = run(driver, container, "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.exit_code) == (b"out\n", b"err\n", 7)
    assert run(driver, container, "kill -9 $$").exit_code == 137
    binary = run(driver, container, "printf '\\377\\000\\001'")
    assert binary.stdout == b"\xff\0\1"
    # A program that is not there is the caller's mistake, told as the runtime tells it.
    request = cri.ExecSyncRequest(container_id=container, cmd=["/no/such"])
    with pytest.raises(grpc.RpcError) as error:
        driver.stub.ExecSync(request, timeout=DEADLINE)
    assert "/no/such" in str(error.value)


@pytest.mark.parametrize(
    "streams", ["head -c {n} /dev/zero; echo end >&2", "head -c {n} /dev/zero | tee /dev/stderr"]
)
def test_output_beyond_the_limit_is_dropped(driver: Driver, container: str, streams: str) -> None:
    done = run(driver, container, streams.format(n=LIMIT + 5_000_000))
    expected = b"end\n" if "echo" in streams else bytes(LIMIT)
    assert (len(done.stdout), done.exit_code) == (LIMIT, 0)
    assert done.stderr == expected


def test_a_client_that_takes_less_is_told_so(driver: Driver, container: str, live_stack: Stack) -> None:
    request = cri.ExecSyncRequest(
        container_id=container, cmd=["sh", "-c", "head -c 9000000 /dev/zero | tee /dev/stderr"]
    )
    # As the kubelet's.
    options = [("grpc.max_receive_message_length", LIMIT), ("grpc.use_local_subchannel_pool", 1)]
    with (
        grpc.insecure_channel(f"unix:{live_stack.socket('runtime')}", options=options) as channel,
        refused(grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        api_pb2_grpc.RuntimeServiceStub(channel).ExecSync(request, timeout=DEADLINE)
    assert driver.output(container, "echo", "on") == "on\n"


def test_a_command_that_does_not_start_is_told_from_one_that_ends_alike(
    driver: Driver, container: str
) -> None:
    alike = run(driver, container, "echo 'exec failed: executable file' >&2; exit 255")
    assert (alike.exit_code, alike.stderr) == (255, b"exec failed: executable file\n")
    for program in ("/nothing", "/proc"):
        with refused(grpc.StatusCode.INTERNAL) as refusal:
            request = cri.ExecSyncRequest(container_id=container, cmd=[program])
            driver.stub.ExecSync(request, timeout=DEADLINE)
        assert f"exec in container {container}" in refusal.text


def test_a_timeout_leaves_nothing_alive(driver: Driver, container: str) -> None:
    started = time.monotonic()
    script = "(sleep 7771 & setsid sleep 7772 & sleep 7773); sleep 7774"
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED) as refusal:
        run(driver, container, script, timeout=1)
    assert time.monotonic() - started < 60
    assert container in refusal.text
    wait_until("all are dead", lambda: not any(sleepers(number) for number in (7771, 7773, 7774)))
    wait_until("the one in a session of its own too", lambda: not sleepers(7772))
    assert driver.output(container, "echo", "on") == "on\n"


def test_a_caller_that_goes_away_leaves_nothing_alive(driver: Driver, container: str) -> None:
    request = cri.ExecSyncRequest(container_id=container, cmd=["sleep", "7775"])
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        driver.stub.ExecSync(request, timeout=1)
    wait_until("it is dead", lambda: not sleepers(7775))


def test_a_child_that_holds_the_output_does_not_hold_the_call(driver: Driver, container: str) -> None:
    started = time.monotonic()
    done = run(driver, container, "sleep 7776 & sleep 0.5; echo begun; exit 4")
    assert time.monotonic() - started < 60
    assert (done.stdout, done.exit_code) == (b"begun\n", 4)
    assert sleepers(7776)  # it belongs to the container, and ends with it
    driver.stop(container)
    wait_until("it ended with the container", lambda: not sleepers(7776))


def test_a_command_that_ends_at_once_and_leaves_a_child(driver: Driver, container: str) -> None:
    for code in (0, 5):
        done = run(driver, container, f"sleep 7778 & exit {code}")
        assert done.exit_code == code
    driver.stop(container)
    wait_until("it ended with the container", lambda: not sleepers(7778))


def test_a_container_that_ends_meanwhile(driver: Driver) -> None:
    pod = driver.run(pod_config("short"))
    container = driver.launch(pod, driver.config("short", ("sleep", f"{PATIENCE:g}")))
    started = time.monotonic()
    try:
        assert run(driver, container, "sleep 7777").exit_code == 137
    except grpc.RpcError as error:
        assert container in str(error.details())
    assert time.monotonic() - started < 60
    assert driver.wait_exited(container).exit_code == 0
    assert not sleepers(7777)
