"""What one client may take, and what it costs its neighbours: memory, streams, messages, time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych_dev import streamclient as client
from triptych_dev.patience import PATIENCE
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.integration

FORWARD = pb.OpenPortForwardRequest(target=pb.Target(pod_sandbox_id="p1"))
KERNEL = 64 << 20
"""More than the kernel holds of a connection and a pipe."""


def resident(daemon) -> int:
    return int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1]) * 4096


def active(daemon) -> list[pb.Session]:
    sessions = daemon.stub.ListSessions(pb.ListSessionsRequest()).sessions
    return [each for each in sessions if each.active]


async def stopped(measure) -> int:
    """A number, once it has not changed for a second."""
    last = -1
    async with asyncio.timeout(60 * PATIENCE):
        while last != (last := measure()):
            await asyncio.sleep(1.0)
    return last


async def test_a_process_that_reads_no_input_stops_its_client(start_streaming, container) -> None:
    daemon = start_streaming()
    sleeper = container.exec_request("/bin/sleep", "100000", stdin=True)
    piece, sent = bytes(32768), 0
    async with client.remote_spdy(daemon.stub.OpenExec(sleeper).url, stdin=True) as remote:
        before = resident(daemon)

        async def flood() -> None:
            nonlocal sent
            assert remote.stdin
            while True:
                await remote.stdin.write(piece)
                sent += len(piece)

        task = asyncio.ensure_future(flood())
        assert await stopped(lambda: sent) < KERNEL
        assert sum(each.bytes_in for each in active(daemon)) < 1 << 20
        assert resident(daemon) - before < 1 << 20
        # Its neighbour is served meanwhile.
        data = bytes(1_000_000)
        url = daemon.stub.OpenExec(container.exec_request("/bin/cat", stdin=True)).url
        assert (await client.exec_spdy(url, data)).stdout == data
        task.cancel()


@pytest.mark.slow
async def test_a_client_that_vanishes_while_it_is_not_read_is_noticed(start_streaming, container) -> None:
    daemon = start_streaming("[timeouts]\nhangup = 0.5\n")
    request = container.exec_request("/bin/sleep", "100000", stdin=True, pod="unread")
    async with client.remote_spdy(daemon.stub.OpenExec(request).url, stdin=True) as remote:
        assert remote.stdin and remote.session.transport
        sent = 0

        async def flood() -> None:
            nonlocal sent
            assert remote.stdin
            while True:
                await remote.stdin.write(bytes(32768))
                sent += 1

        task = asyncio.ensure_future(flood())
        await stopped(lambda: sent)
        task.cancel()
        remote.session.transport.abort()
    assert await daemon.audit("unread", seconds=120 * PATIENCE)


async def test_streams_of_a_session_are_counted(start_streaming) -> None:
    daemon = start_streaming("[limits]\nstreams_per_session = 4\n")
    async with client.portforward_spdy(daemon.stub.OpenPortForward(FORWARD).url) as forwarder:
        accepted = []
        for index in range(6):
            headers = {"streamtype": "error", "port": "80", "requestid": str(index)}
            stream = await forwarder.session.open(headers, wait=False)
            accepted.append(await stream.replied)
        assert accepted == [True] * 4 + [False] * 2


async def test_a_frame_above_the_limit_is_too_big(start_streaming, container) -> None:
    daemon = start_streaming("[limits]\nmessage_bytes = 65536\n")
    url = daemon.stub.OpenExec(container.exec_request("/bin/cat", stdin=True, pod="big")).url
    async with client.open_websocket(url, "v5.channel.k8s.io") as socket:
        await socket.send(b"\0" + bytes(65536))
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                await socket.recv()
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1009
    assert (await daemon.audit("big"))[0]["exit_code"] is not None


async def test_an_idle_client_of_a_process_that_has_ended_is_ended(start_streaming, container) -> None:
    # The child that is left behind writes more than the kernel holds of the connection, before it is let go.
    daemon = start_streaming(f"[timeouts]\nidle = 2\nlinger = {0.2 * PATIENCE}\n")
    request = container.shell("yes & read line; exit 3", stdin=True, stderr=False, pod="left")
    async with client.remote_spdy(daemon.stub.OpenExec(request).url, stdin=True, stderr=False) as remote:
        assert remote.stdin and remote.stdout and remote.session.transport
        await remote.stdout.read_until(b"y\n")
        remote.session.transport.pause_reading()
        await remote.stdin.write(b"x\n")
        (line,) = await daemon.audit("left")
    assert line["error"] == "nothing moved for 2 s"
    assert not active(daemon)


@pytest.mark.parametrize("tty", [False, True])
async def test_an_idle_exec_session_ends_with_its_process(start_streaming, container, tty: bool) -> None:
    daemon = start_streaming("[timeouts]\nidle = 3\n")
    request = container.exec_request("/bin/cat", stdin=True, tty=tty, pod="idle")
    async with client.remote_spdy(daemon.stub.OpenExec(request).url, stdin=True, tty=tty) as remote:
        assert remote.stdin and remote.stdout
        for _ in range(20):  # longer than the timeout: what moves keeps it open
            await remote.stdin.write(b"x\n")
            await remote.stdout.read_until(b"\n")
            await asyncio.sleep(0.2)
        async with asyncio.timeout(60 * PATIENCE):
            assert b"nothing moved for 3 s" in await remote.status()
    (line,) = await daemon.audit("idle")
    assert line["error"] == "nothing moved for 3 s"
    assert not [each for each in active(daemon) if each.target.pod_name == "idle"]
