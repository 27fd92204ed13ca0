"""Exec, attach and port-forward through all daemons: their absence, their secrets, and each OCI runtime."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev import streamclient as client
from triptych_dev.kubelet import pod_config
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack
from triptych_dev.testing import needs
from triptych_dev.testing.driver import DEADLINE, Driver, refused

pytestmark = [pytest.mark.integration, pytest.mark.requires(*needs.LIVE), pytest.mark.timeout(180)]

_ECHO = ("sh", "-c", "while read -r line; do echo got $line; done")
_SETTINGS: dict[str, dict[str, Any]] = {
    "runtime": {"log": {"level": "debug"}, "deadlines": {"streaming": 3.0}},
    "streaming": {"log": {"level": "debug"}},
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The daemons, with all their logs; the streaming daemon keeps its port over restarts."""
    root = tmp_path_factory.mktemp("streams")
    made = Stack(root, f"tstream{os.getpid() % 10000}", "10.99.0.0/16", _SETTINGS)
    made.write_configuration()
    try:
        made.start()
        yield made
    finally:
        made.clean()


@pytest.fixture
def driver(stack: Stack, live_image: str) -> Iterator[Driver]:
    """Drives the runtime daemon; its pods are gone afterwards."""
    stack.pull(live_image)
    with stack.runtime() as stub:
        made = Driver(stub, live_image)
        yield made
    with stack.runtime() as stub:  # the runtime daemon may be another one now
        Driver(stub, live_image).clear()


def exec_request(container: str, *command: str, stdin: bool = False, tty: bool = False) -> cri.ExecRequest:
    return cri.ExecRequest(
        container_id=container, cmd=command, stdin=stdin, stdout=True, stderr=not tty, tty=tty
    )


async def url_of(call: Any, request: Any) -> str:
    """The URL of a session."""
    return str((await asyncio.to_thread(call, request, timeout=DEADLINE)).url)


@pytest.mark.parametrize("handler", ["crun", "runc"])
async def test_each_runtime_handler(driver: Driver, handler: str) -> None:
    pod = driver.run(f"streams-{handler}", handler=handler)
    config = driver.config("main", _ECHO)
    config.stdin = True
    container = driver.launch(pod, config)

    request = exec_request(container, "sh", "-c", "echo out; echo err >&2; exit 9")
    result = await client.exec_spdy(await url_of(driver.stub.Exec, request))
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 9)

    request = exec_request(container, "sh", stdin=True, tty=True)
    async with client.remote_spdy(await url_of(driver.stub.Exec, request), stdin=True, tty=True) as remote:
        assert remote.stdin and remote.stdout
        await remote.set_size(99, 44)
        await remote.stdin.write(b"stty -echo; stty size; exit 3\n")
        await remote.stdout.read_until(b"44 99\r\n")
        assert client.exit_code(await remote.status()) == 3

    attach = cri.AttachRequest(container_id=container, stdin=True, stdout=True, stderr=True)
    async with client.attach_spdy(await url_of(driver.stub.Attach, attach), stdin=True) as attached:
        assert attached.stdin and attached.stdout
        await attached.stdin.write(b"hello\n")
        assert await attached.stdout.read_until(b"\n") == b"got hello\n"


@pytest.mark.parametrize("handler", ["crun", "runc"])
async def test_a_command_in_a_user_namespace_may_open_its_output_again(driver: Driver, handler: str) -> None:
    config = pod_config(f"mapped-{handler}")
    options = config.linux.security_context.namespace_options
    options.userns_options.mode = cri.POD
    for mappings in (options.userns_options.uids, options.userns_options.gids):
        mappings.add(container_id=0, host_id=200_000, length=65_536)
    app = driver.config("app")
    app.linux.security_context.namespace_options.CopyFrom(options)
    container = driver.launch(driver.run(config, handler=handler), app)
    request = exec_request(container, "sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr")
    result = await client.exec_spdy(await url_of(driver.stub.Exec, request))
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


async def test_exec_waits_for_a_streaming_daemon_that_comes_back(stack: Stack, driver: Driver) -> None:
    container = driver.launch(driver.run("waits"), "main")
    request = exec_request(container, "echo", "hi")
    stack.stop("streaming")
    try:
        asked = asyncio.ensure_future(url_of(driver.stub.Exec, request))
        await asyncio.sleep(0.3)
        assert not asked.done()
    finally:
        await asyncio.to_thread(stack.start, "streaming")
    try:
        url = await asked
    except grpc.RpcError as error:  # its start took longer than Exec waits
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        url = await url_of(driver.stub.Exec, request)
    assert (await client.exec_spdy(url)).stdout == b"hi\n"


def test_without_it_every_session_is_refused_with_what_to_start(stack: Stack, driver: Driver) -> None:
    pod = driver.run("refused")
    container = driver.launch(pod, "main")
    stack.stop("streaming")
    try:
        for call, request in (
            (driver.stub.Exec, exec_request(container, "true")),
            (driver.stub.Attach, cri.AttachRequest(container_id=container, stdout=True)),
            (driver.stub.PortForward, cri.PortForwardRequest(pod_sandbox_id=pod.id)),
        ):
            with refused(grpc.StatusCode.UNAVAILABLE) as refusal:
                call(request, timeout=DEADLINE)
            assert "systemctl start triptych-streaming" in refusal.text
    finally:
        stack.start("streaming")


async def test_sessions_outlive_the_runtime_daemon(stack: Stack, driver: Driver) -> None:
    pod = driver.run("outlive")
    container = driver.launch(pod, driver.config("main", ("nc", "-ll", "-p", "9001", "-e", "cat")))
    command = exec_request(container, "cat", stdin=True)
    forward = cri.PortForwardRequest(pod_sandbox_id=pod.id)
    async with (
        client.remote_spdy(await url_of(driver.stub.Exec, command), stdin=True) as remote,
        client.portforward_spdy(await url_of(driver.stub.PortForward, forward)) as forwarder,
    ):
        given_out = await url_of(driver.stub.Exec, exec_request(container, "echo", "later"))
        assert remote.stdin and remote.stdout
        pair = await connected(forwarder, 9001)
        for end in (stack.stop, stack.kill):
            await asyncio.to_thread(end, "runtime")
            try:
                for stream, written in ((remote.stdout, remote.stdin), (pair.data, pair.data)):
                    await written.write(b"still here\n")
                    assert await stream.read_until(b"\n") == b"still here\n"
                if given_out:
                    assert (await client.exec_spdy(given_out)).stdout == b"later\n"
                    given_out = ""
            finally:
                await asyncio.to_thread(stack.start, "runtime")
        await remote.stdin.close()
        assert client.exit_code(await remote.status()) == 0


async def connected(forwarder: client.Forwarder, port: int) -> client.Forward:
    """A connection that answers: the container's server may still be starting."""
    async with asyncio.timeout(30 * PATIENCE):
        while True:
            pair = await forwarder.connect(port)
            await pair.data.write(b"first\n")
            if await pair.data.read() == b"first\n":
                return pair
            await asyncio.sleep(0.1)


async def test_no_token_reaches_a_log(stack: Stack, driver: Driver) -> None:
    pod = driver.run("secrets")
    container = driver.launch(pod, "main")
    urls = [
        await url_of(driver.stub.Exec, exec_request(container, "echo", "x")),
        await url_of(driver.stub.Exec, exec_request(container, "/bin/nothing")),
        await url_of(driver.stub.PortForward, cri.PortForwardRequest(pod_sandbox_id=pod.id)),
    ]
    answers = [await client.exec_spdy(url) for url in urls[:2]]
    assert answers[0].stdout == b"x\n" and b"/bin/nothing" in answers[1].status
    for url in urls[:2]:  # used
        with pytest.raises(client.UpgradeRefused) as caught:
            await client.exec_spdy(url)
        assert caught.value.status == 404
    logs = "".join(Path(stack.root / f"{name}.log").read_text() for name in ("runtime", "streaming"))
    assert "request refused" in logs  # so debug lines are there
    for url in urls:
        token = url.rpartition("/")[2]
        assert len(token) == 22 and token not in logs
        assert not any(token.encode() in answer.status for answer in answers)
