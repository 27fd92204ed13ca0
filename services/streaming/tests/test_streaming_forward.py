"""Port-forward into a real network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych_dev import streamclient as client
from triptych_linux.namespaces import Namespace, enter, in_thread

pytestmark = pytest.mark.integration

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def daemon(shared_streaming):
    return shared_streaming


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers when the client has ended: half-close in both directions is needed."""
    data = await reader.read()
    writer.write(data[::-1])
    await writer.drain()
    writer.close()


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def listen(container) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Serves inside the container's network namespace."""
    servers: list[asyncio.Server] = []

    async def start(serve: Serve, *, ipv6: bool = False) -> int:
        def make() -> socket.socket:
            enter(container.network_namespace, Namespace.NETWORK)
            family, host = (socket.AF_INET6, "::1") if ipv6 else (socket.AF_INET, "127.0.0.1")
            made = socket.socket(family, socket.SOCK_STREAM)
            made.bind((host, 0))
            made.listen(256)
            made.setblocking(False)
            return made

        listener = await in_thread(make)
        servers.append(await asyncio.start_server(serve, sock=listener))
        return int(listener.getsockname()[1])

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("ipv6", [False, True])
async def test_half_close_both_ways(daemon, container, listen, ipv6: bool) -> None:
    port = await listen(echo, ipv6=ipv6)
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    async with client.portforward_spdy(url) as forwarder:
        pair = await forwarder.connect(port)
        await pair.data.write(b"abc")
        await pair.data.close()
        assert await pair.data.read_all() == b"cba"
        assert await pair.error.read_all() == b""


async def test_a_port_that_ends_first_is_done_for_clients_that_wait_for_its_error_stream(
    daemon, container, listen
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"answer")
        await writer.drain()
        writer.close()

    port = await listen(answer)
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    async with client.portforward_spdy(url) as forwarder:
        pair = await forwarder.connect(port)
        assert await pair.data.read_all() == b"answer"
        assert await pair.error.read_all() == b"" and pair.error.reset is None
        while pair.data.reset is None:  # who still writes notices that nobody reads
            await pair.data.write(b"more")
            await asyncio.sleep(0)


async def test_many_connections_on_one_session(daemon, container, listen) -> None:
    port = await listen(mirror)
    url = daemon.stub.OpenPortForward(container.forward_request(port)).url

    async def one(forwarder: client.Forwarder) -> None:
        pair = await forwarder.connect(port)
        data = os.urandom(100_000)
        await pair.data.write(data)
        await pair.data.close()
        assert await pair.data.read_all() == data

    async with client.portforward_spdy(url) as forwarder:
        await asyncio.gather(*(one(forwarder) for _ in range(60)))
        await asyncio.gather(*(one(forwarder) for _ in range(60)))


async def test_connections_of_all_sessions_are_limited(start_streaming, container, listen) -> None:
    daemon = start_streaming("[limits]\nforwarded_connections = 1\n")
    port = await listen(mirror)
    urls = [daemon.stub.OpenPortForward(container.forward_request()).url for _ in range(2)]
    async with client.portforward_spdy(urls[0]) as first, client.portforward_spdy(urls[1]) as second:
        taken = await first.connect(port)
        refused = await second.connect(port)
        assert b"too many forwarded connections" in await refused.error.read_all()
        await taken.data.close()
        assert await taken.data.read_all() == b""
        again = await second.connect(port)
        await again.data.write(b"x")
        assert await again.data.read() == b"x"


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes no more than the kernel and this side's buffer do."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    writer.close()


async def test_a_port_that_does_not_read_stops_no_other(start_streaming, container, listen) -> None:
    daemon = start_streaming("[limits]\nforward_backlog_bytes = 1000000000\n")
    silent, port = await listen(deaf), await listen(mirror)
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    async with client.portforward_spdy(url) as forwarder:
        stuck = await forwarder.connect(silent)
        for _ in range(1000):  # more than the kernel takes
            await stuck.data.write(bytes(1 << 15))
        other = await forwarder.connect(port)
        await other.data.write(b"through")
        assert await other.data.read_until(b"through") == b"through"


async def test_what_waits_for_a_port_is_bounded(start_streaming, container, listen) -> None:
    daemon = start_streaming("[limits]\nforward_backlog_bytes = 65536\n")
    silent = await listen(deaf)
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    async with client.portforward_spdy(url) as forwarder:
        stuck = await forwarder.connect(silent)

        async def flood() -> None:
            while True:
                await stuck.data.write(bytes(1 << 15))

        task = asyncio.ensure_future(flood())
        seen = -1
        while seen != (seen := moved(daemon)) or not seen:
            await asyncio.sleep(1)
        assert seen < 32 << 20
        task.cancel()


def moved(daemon) -> int:
    sessions = daemon.stub.ListSessions(pb.ListSessionsRequest()).sessions
    return sum(each.bytes_in for each in sessions if each.active)


async def test_nobody_listens(daemon, container, listen) -> None:
    port = await listen(mirror)
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    async with client.portforward_spdy(url) as forwarder:
        dead = await forwarder.connect(1)
        text = (await dead.error.read_all()).decode()
        assert "port 1" in text and "Connection refused" in text and "::1" in text
        assert await dead.data.read_all() == b"" and dead.data.reset is not None
        alive = await forwarder.connect(port)
        await alive.data.write(b"still works")
        assert await alive.data.read() == b"still works"


async def test_a_port_that_resets_costs_its_pair_only(daemon, container, listen) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    bad, good = await listen(reset), await listen(mirror)
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    async with client.portforward_spdy(url) as forwarder:
        pair = await forwarder.connect(bad)
        await pair.data.write(b"x")
        # A text would make client-go end the session.
        assert await pair.error.read_all() == await pair.data.read_all() == b""
        assert pair.error.reset and pair.data.reset
        other = await forwarder.connect(good)
        await other.data.write(b"fine")
        assert await other.data.read() == b"fine"


async def test_a_network_that_is_gone(daemon, container) -> None:
    request = container.forward_request()
    request.network_namespace = "/run/netns/gone"
    async with client.portforward_spdy(daemon.stub.OpenPortForward(request).url) as forwarder:
        pair = await forwarder.connect(80)
        assert b"cannot enter network namespace" in await pair.error.read_all()


async def test_a_bad_port_is_refused(daemon, container) -> None:
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    async with client.portforward_spdy(url) as forwarder:
        for headers in (
            {"streamtype": "data", "port": "0", "requestid": "1"},
            {"streamtype": "data", "port": "70000", "requestid": "2"},
            {"streamtype": "data", "requestid": "3"},
            {"streamtype": "other", "port": "80", "requestid": "4"},
        ):
            stream = await forwarder.session.open(headers, wait=False)
            await stream.ended.wait()
            assert stream.reset is not None


async def test_half_a_pair_times_out(daemon, container) -> None:
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    async with client.portforward_spdy(url) as forwarder:
        stream = await forwarder.session.open({"streamtype": "error", "port": "80", "requestid": "1"})
        assert b"not complete in time" in await stream.read_all()


@pytest.mark.parametrize("protocol", ["SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io"])
async def test_the_tunnel(daemon, container, listen, protocol: str) -> None:
    port = await listen(mirror)
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    data = os.urandom(1_000_000)
    async with client.portforward_tunnel(url, protocol) as forwarder:
        pair = await forwarder.connect(port)
        for start in range(0, len(data), 10_000):
            await pair.data.write(data[start : start + 10_000])
        await pair.data.close()
        assert await pair.data.read_all() == data


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""])
async def test_the_old_websocket_form(daemon, container, listen, protocol: str) -> None:
    ports = [await listen(mirror), await listen(mirror), 1]
    url = daemon.stub.OpenPortForward(container.forward_request(*ports)).url
    messages, base64 = client.Messages(), "base64" in protocol
    async with client.open_websocket(url, protocol) as opened:
        for channel in (0, 2):
            await opened.send(client.encode_message(channel, b"to %d" % channel, base64=base64))
        while len(messages[0]) < 6 or len(messages[2]) < 6 or len(messages[5]) < 10:
            messages.take(await opened.recv())
    for index, port in enumerate(ports):
        assert messages[2 * index][:2] == messages[2 * index + 1][:2] == struct.pack("<H", port)
    assert (messages[0][2:], messages[2][2:]) == (b"to 0", b"to 2")
    assert b"Connection refused" in messages[5]


async def test_a_slow_port_holds_its_client_and_not_the_daemon(daemon, container, listen) -> None:
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await mirror(reader, writer)

    port = await listen(slow)
    url = daemon.stub.OpenPortForward(container.forward_request()).url
    data = bytes(20_000_000)
    async with client.portforward_spdy(url) as forwarder:
        received = 0
        done = asyncio.Event()

        def count(piece: memoryview) -> None:
            nonlocal received
            received += len(piece)
            if received == len(data):
                done.set()

        pair = await forwarder.connect(port, count)

        async def feed() -> None:
            for start in range(0, len(data), 32768):
                await pair.data.write(data[start : start + 32768])

        task = asyncio.ensure_future(feed())
        await asyncio.sleep(0.5)
        assert not task.done()
        go_on.set()
        await task
        await done.wait()
