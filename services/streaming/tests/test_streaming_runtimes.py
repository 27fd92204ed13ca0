"""Exec by each OCI runtime: the session must not depend on which one the container has."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from triptych_dev import streamclient as client
from triptych_dev.errors import StepFailed
from triptych_dev.testing.ocicontainer import CRUN, RUNC
from triptych_linux.pidfd import ProcessIdentity

pytestmark = pytest.mark.integration


@pytest.fixture
def daemon(shared_streaming):
    return shared_streaming


@pytest.mark.parametrize("code", [0, 1, 255])
async def test_output_and_exit_code(daemon, any_container, code: int) -> None:
    url = daemon.stub.OpenExec(any_container.shell(f"echo out; echo err >&2; exit {code}")).url
    result = await client.exec_spdy(url)
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", code)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_is_128_and_its_number(daemon, any_container, number: int) -> None:
    url = daemon.stub.OpenExec(any_container.shell(f"kill -{int(number)} $$")).url
    assert (await client.exec_spdy(url)).exit_code == 128 + number


async def test_stdin_and_its_end(daemon, any_container) -> None:
    data = bytes(range(256)) * 2000
    url = daemon.stub.OpenExec(any_container.exec_request("/bin/cat", stdin=True)).url
    result = await client.exec_spdy(url, data)
    assert result.stdout == data and result.exit_code == 0


async def test_a_terminal_its_size_and_exit_code(daemon, any_container) -> None:
    url = daemon.stub.OpenExec(any_container.exec_request("/bin/sh", stdin=True, tty=True)).url
    async with client.remote_spdy(url, stdin=True, tty=True) as remote:
        assert remote.stdin and remote.stdout
        await remote.set_size(101, 41)
        await remote.stdin.write(b"stty -echo; stty size\n")
        await remote.stdout.read_until(b"41 101\r\n")
        await remote.set_size(60, 20)
        await remote.stdin.write(b"stty size; exit 5\n")
        await remote.stdout.read_until(b"20 60\r\n")
        assert client.exit_code(await remote.status()) == 5


async def test_a_program_that_is_not_there(daemon, any_container) -> None:
    result = await client.exec_spdy(daemon.stub.OpenExec(any_container.exec_request("/bin/nothing")).url)
    with pytest.raises(StepFailed, match="OCI runtime exec failed: .*/bin/nothing"):
        _ = result.exit_code


@pytest.mark.parametrize("tty", [False, True])
async def test_a_client_that_vanishes_ends_the_process(daemon, any_container, until, tty: bool) -> None:
    pod = f"vanish-{Path(any_container.runtime).name}-{int(tty)}"
    request = any_container.shell("echo $$; exec cat", stdin=True, stderr=False, tty=tty, pod=pod)
    async with client.remote_spdy(
        daemon.stub.OpenExec(request).url, stdin=True, stderr=False, tty=tty
    ) as remote:
        assert remote.stdout
        await remote.stdout.read_until(b"\n")
    await until(lambda: not list((daemon.state / "exec").iterdir()))
    # End of input, no reader of its output, a hangup: which it notices first is its own matter.
    signals = (signal.SIGHUP, signal.SIGPIPE, signal.SIGKILL)
    assert (await daemon.audit(pod))[0]["exit_code"] in (0, *(128 + number for number in signals))


async def test_nothing_runs_before_the_streams_are_there(daemon, any_container, until) -> None:
    """The runtime is started early, the process is not."""
    mark = any_container.bundle / "rootfs/tmp/ran"
    url = daemon.stub.OpenExec(any_container.shell("echo >/tmp/ran; cat", stdin=True)).url
    async with client.connect_spdy(url) as session:
        await session.open({"streamtype": "error"})
        await until(lambda: list((daemon.state / "exec").iterdir()))
        await session.open({"streamtype": "stdout"})
        await session.open({"streamtype": "stderr"})
        await asyncio.sleep(0.3)
        assert not mark.exists()
        await session.open({"streamtype": "stdin"})
        await until(mark.exists)
    mark.unlink()


async def test_a_client_that_leaves_before_its_streams_runs_nothing(daemon, any_container, until) -> None:
    mark = any_container.bundle / "rootfs/tmp/ran"
    pod = f"left-{Path(any_container.runtime).name}"
    url = daemon.stub.OpenExec(any_container.shell("echo >/tmp/ran", pod=pod)).url
    async with client.connect_spdy(url) as session:
        await session.open({"streamtype": "error"})
        await until(lambda: list((daemon.state / "exec").iterdir()))
    assert (await daemon.audit(pod))[0]["error"]
    await until(lambda: not list((daemon.state / "exec").iterdir()))
    assert not mark.exists()


@pytest.mark.parametrize("runtime", [CRUN, RUNC])
async def test_a_container_that_ends_before_the_streams_are_there(
    daemon, make_container, until, runtime: str
) -> None:
    """The number of its init process may be another one's by then."""
    ending = make_container(runtime=runtime)
    identity = ProcessIdentity.of(ending.pid)
    request = ending.exec_request(
        "/bin/true", container_pid=identity.pid, container_start_ticks=identity.start_ticks
    )
    async with client.connect_spdy(daemon.stub.OpenExec(request).url) as session:
        error = await session.open({"streamtype": "error"})
        await until(lambda: list((daemon.state / "exec").glob("*.log")))
        os.kill(ending.pid, signal.SIGKILL)
        await until(lambda: not identity.alive())
        await session.open({"streamtype": "stdout"})
        await session.open({"streamtype": "stderr"})
        with pytest.raises(StepFailed, match="is not running"):
            client.exit_code(await error.read_all())
    await until(lambda: not list((daemon.state / "exec").iterdir()))


async def test_a_process_document_larger_than_a_pipe(daemon, any_container) -> None:
    words = ["x" * 100_000] * 5
    request = any_container.exec_request("/bin/sh", "-c", 'echo "$#$1" | wc -c', "sh", *words)
    result = await client.exec_spdy(daemon.stub.OpenExec(request).url)
    assert (result.stdout.strip(), result.exit_code) == (b"100002", 0)
