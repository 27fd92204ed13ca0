"""Attach to real containers by conmon's socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych_dev import streamclient as client
from triptych_dev.errors import StepFailed

pytestmark = pytest.mark.integration

ECHO = ("/bin/sh", "-c", 'while read -r line; do echo "got $line"; echo "also $line" >&2; done; exit 0')


@pytest.fixture
def daemon(shared_streaming):
    return shared_streaming


async def test_both_outputs_and_input(daemon, make_container) -> None:
    container = make_container(*ECHO, stdin=True)
    url = daemon.stub.OpenAttach(container.attach_request()).url
    async with client.attach_spdy(url, stdin=True) as remote:
        assert remote.stdin and remote.stdout and remote.stderr
        await remote.stdin.write(b"one\n")
        assert await remote.stdout.read_until(b"\n") == b"got one\n"
        assert await remote.stderr.read_until(b"\n") == b"also one\n"


async def test_more_clients_than_the_monitor_takes_at_once_wait_for_it(daemon, make_container) -> None:
    container = make_container("/bin/sh", "-c", "while echo here; do sleep 0.1; done")

    async def one(tasks: asyncio.TaskGroup) -> None:
        url = daemon.stub.OpenAttach(container.attach_request(stdin=False)).url
        remote = await stack.enter_async_context(client.attach_spdy(url))
        assert remote.stdout
        tasks.create_task(remote.stdout.read_until(b"here\n"))

    os.kill(container.conmon, signal.SIGSTOP)
    try:
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            for _ in range(14):  # it listens with a backlog of ten
                await one(tasks)
            os.kill(container.conmon, signal.SIGCONT)
    finally:
        os.kill(container.conmon, signal.SIGCONT)


async def test_several_clients_see_the_same(daemon, make_container) -> None:
    container = make_container(*ECHO, stdin=True)
    urls = [daemon.stub.OpenAttach(container.attach_request(stdin=index == 0)).url for index in range(3)]
    async with (
        client.attach_spdy(urls[0], stdin=True) as writer,
        client.attach_spdy(urls[1]) as first,
        client.attach_spdy(urls[2]) as second,
    ):
        assert writer.stdin
        seen = 0

        async def watch(each: client.Remote) -> None:
            nonlocal seen
            assert each.stdout
            await each.stdout.read_until(b"\n")
            seen += 1

        # The streams are there before the monitor is connected: who is late misses what came before.
        async with asyncio.TaskGroup() as tasks:
            for each in (writer, first, second):
                tasks.create_task(watch(each))
            while seen < 3:
                await writer.stdin.write(b"anybody\n")
                await asyncio.sleep(0.05)
        await writer.stdin.write(b"everybody\n")
        for each in (writer, first, second):
            assert each.stdout
            assert (await each.stdout.read_until(b"got everybody\n")).endswith(b"got everybody\n")


async def test_detaching_leaves_the_container_alone(daemon, make_container) -> None:
    container = make_container(*ECHO, stdin=True)
    for word in (b"one", b"two"):
        url = daemon.stub.OpenAttach(container.attach_request()).url
        async with client.attach_spdy(url, stdin=True) as remote:
            assert remote.stdin and remote.stdout
            await remote.stdin.write(word + b"\n")
            await remote.stdin.close()
            assert await remote.stdout.read_until(b"\n") == b"got " + word + b"\n"


async def test_stdin_once_ends_the_containers_input(daemon, make_container) -> None:
    container = make_container("/bin/sh", "-c", "cat; echo end", stdin=True, stdin_once=True)
    url = daemon.stub.OpenAttach(container.attach_request()).url
    result = await client.exec_spdy(url, b"bytes\n")
    assert result.stdout == b"bytes\nend\n" and result.exit_code == 0


async def test_a_terminal_and_its_size(daemon, make_container) -> None:
    container = make_container("/bin/sh", tty=True, stdin=True)
    url = daemon.stub.OpenAttach(container.attach_request(tty=True)).url
    async with client.attach_spdy(url, stdin=True, tty=True) as remote:
        assert remote.stdin and remote.stdout
        await remote.set_size(77, 33)
        # The size goes to the monitor by another way than input does.
        await remote.stdin.write(
            b"stty -echo; until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; echo it is\n"
        )
        await remote.stdout.read_until(b"\r\nit is\r\n")
        await remote.stdin.write(b"exit\n")
        assert client.exit_code(await remote.status()) == 0


async def test_a_client_without_a_terminal_of_a_container_with_one(daemon, make_container) -> None:
    container = make_container("/bin/sh", tty=True, stdin=True)
    # As the runtime daemon asks for: whether there is a terminal is the container's matter.
    url = daemon.stub.OpenAttach(container.attach_request(tty=True)).url
    async with client.connect_spdy(url) as session:
        error, stdin, stdout = [
            await session.open({"streamtype": each}) for each in ("error", "stdin", "stdout")
        ]
        await stdin.write(b"echo hel''lo\n")
        await stdout.read_until(b"\r\nhello\r\n")
        # One that finds out its size later may tell it.
        resize = await session.open({"streamtype": "resize"})
        await resize.write(b'{"Width": 77, "Height": 33}')
        await stdin.write(b"until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; exit\n")
        assert client.exit_code(await error.read_all()) == 0


async def test_websocket(daemon, make_container) -> None:
    container = make_container("/bin/sh", "-c", "cat; echo end", stdin=True, stdin_once=True)
    url = daemon.stub.OpenAttach(container.attach_request()).url
    result = await client.exec_websocket(url, b"bytes\n")
    assert result.stdout == b"bytes\nend\n" and result.exit_code == 0


async def test_much_output_arrives_whole(daemon, make_container) -> None:
    script = 'read line; i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done'
    container = make_container("/bin/sh", "-c", script, stdin=True)
    url = daemon.stub.OpenAttach(container.attach_request()).url
    result = await client.exec_spdy(url, b"go\n")
    assert result.stdout == b"".join(b"line %d\n" % index for index in range(20000))


async def test_a_container_that_has_ended(daemon, container) -> None:
    request = container.attach_request()
    request.attach_socket = "/nowhere/attach"
    result = await client.exec_spdy(daemon.stub.OpenAttach(request).url, b"")
    with pytest.raises(StepFailed, match=f"container {container.id} is not running"):
        _ = result.exit_code


@contextlib.contextmanager
def monitor(path: Path) -> Iterator[socket.socket]:
    """A listener as conmon has one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        yield listener


async def test_a_client_that_does_not_read_frees_the_monitor(start_streaming, tmp_path: Path) -> None:
    daemon = start_streaming("[timeouts]\nlag = 1\n")
    loop = asyncio.get_running_loop()
    request = pb.OpenAttachRequest(
        target=pb.Target(container_id="c1", pod_name="lag"),
        streams=pb.Streams(stdout=True),
        attach_socket=str(tmp_path / "attach"),
    )
    with monitor(tmp_path / "attach") as listener:
        url = daemon.stub.OpenAttach(request).url
        async with client.attach_spdy(url, stderr=False) as remote:
            assert remote.stdout and remote.session.transport
            connected, _ = await loop.sock_accept(listener)
            remote.session.transport.pause_reading()
            with connected:
                # Waits as conmon does when the daemon does not read.
                with pytest.raises(OSError):
                    while True:
                        await loop.sock_sendall(connected, b"\2" + bytes(8191))
            remote.session.transport.resume_reading()
            assert b"did not read for 1 s" in await remote.status()
    (line,) = await daemon.audit("lag")
    assert "did not read for 1 s" in line["error"]


async def test_a_long_socket_path(daemon, make_container) -> None:
    container = make_container(*ECHO, stdin=True)
    deep = container.bundle / ("d" * 120)
    deep.mkdir()
    (deep / "attach").symlink_to(container.attach_socket)
    request = container.attach_request()
    request.attach_socket = str(deep / "attach")
    async with client.attach_spdy(daemon.stub.OpenAttach(request).url, stdin=True) as remote:
        assert remote.stdin and remote.stdout
        await remote.stdin.write(b"x\n")
        assert await remote.stdout.read_until(b"\n") == b"got x\n"
    assert isinstance(request, pb.OpenAttachRequest)
