"""A client's connection as sessions see it."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import triptych_spdy as spdy
from triptych_streaming.protocol.channels import Buffer
from triptych_streaming.protocol.portforward_spdy import SpdyPortForward
from triptych_streaming.server import wire as wires
from triptych_streaming.server.listener import Acceptor
from triptych_streaming.server.wire import Wire
from triptych_streaming.traffic import Traffic
from triptych_streaming.workers.forward import ForwardLimits, ForwardSession
from triptych_streaming.workers.lag import LagClock
from triptych_streaming.workers.quota import Quota


@asynccontextmanager
async def connected(
    host: str = "127.0.0.1", family: socket.AddressFamily = socket.AF_INET
) -> AsyncIterator[tuple[Wire, socket.socket]]:
    """A connection that the listener took, and its client."""
    taken: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    with socket.create_server((host, 0), family=family) as listener:
        listener.setblocking(False)
        acceptor = Acceptor(listener, taken.set_result)
        acceptor.start()
        with socket.create_connection(listener.getsockname()[:2]) as client:
            _, wire = await loop.connect_accepted_socket(lambda: Wire(65536), await taken)
            acceptor.stop(shared=True)
            yield wire, client
            wire.abort()


class Exhausted(socket.socket):
    """A listener of a process without descriptors."""

    asked = False

    def accept(self) -> tuple[socket.socket, object]:
        self.asked = True
        raise OSError(errno.EMFILE, "Too many open files")


async def test_a_listener_is_given_up_also_while_descriptors_lack() -> None:
    with Exhausted() as listener, socket.socket() as client:
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        acceptor = Acceptor(listener, lambda connection: None)
        acceptor.start()
        client.connect(listener.getsockname())
        while not listener.asked:
            await asyncio.sleep(0)
        acceptor.stop(shared=True)
        assert listener.fileno() < 0
        acceptor.start()  # as the end of the rest does


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
async def test_a_peer_is_an_address_and_a_port(family: socket.AddressFamily, host: str) -> None:
    async with connected(host, family) as (wire, client):
        address, _, port = wire.peer.rpartition(":")
        assert address == (f"[{host}]" if ":" in host else host)
        assert int(port) == client.getsockname()[1]


async def test_the_kernel_watches_silent_clients() -> None:
    async with connected() as (wire, _):
        assert wire._transport is not None
        taken = wire._transport.get_extra_info("socket")
        assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize("resets", [False, True])
async def test_a_client_that_goes_while_it_is_not_read_is_noticed(
    monkeypatch: pytest.MonkeyPatch, resets: bool
) -> None:
    monkeypatch.setattr(wires, "_PROBE_SECONDS", 0.01)
    lost = asyncio.Event()
    async with connected() as (wire, client):
        wire.listen(lambda data: None, lost.set)
        wire.probe = lambda: [b"nothing"]
        active_at = wire.active_at
        wire.hold("the session")
        client.sendall(bytes(1000))
        assert await asyncio.to_thread(client.recv, 7) == b"nothing"
        assert wire.active_at == active_at and not lost.is_set()
        if resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await lost.wait()


async def test_a_client_that_is_read_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "_PROBE_SECONDS", 0)
    probes = 0

    def probe() -> list[Buffer]:
        nonlocal probes
        probes += 1
        return []

    async with connected() as (wire, _):
        wire.listen(lambda data: None, lambda: None)
        wire.probe = probe
        for holder in ("one", "two"):
            wire.hold(holder)
        while not probes:
            await asyncio.sleep(0)
        for holder in ("one", "two"):
            wire.release(holder)
        before = probes
        for _ in range(10):
            await asyncio.sleep(0)
        assert probes == before


def read_all(client: socket.socket) -> int:
    """Bytes up to the end."""
    total = 0
    while size := len(client.recv(1 << 16)):
        total += size
    return total


async def test_a_client_that_reads_late_gets_all() -> None:
    async with connected() as (wire, client):
        wire.listen(lambda data: None, lambda: None)
        sent = 0
        while not wire.congested:
            wire.write([bytes(65536)])
            sent += 65536
        closing = asyncio.ensure_future(wire.close(0.01, patience=math.inf))
        client.sendall(b"a ping: what waits would be lost if nobody were there to read it")
        await asyncio.wait((closing,), timeout=0.3)  # many times what it gets to close
        assert await asyncio.to_thread(read_all, client) == sent
        client.close()
        await closing


async def test_a_client_that_reads_nothing_at_the_end_is_cut_off_at_last() -> None:
    async with connected() as (wire, _):
        wire.listen(lambda data: None, lambda: None)
        while not wire.congested:
            wire.write([bytes(65536)])
        await wire.close(0.01, patience=0.05)
        assert not wire.unread


async def test_a_slow_client_that_reads_does_not_lag() -> None:
    async with connected() as (wire, client):
        wire.listen(lambda data: None, lambda: None)
        clock = LagClock(wire)
        assert clock.seconds(0) == 0
        while not wire.congested:
            wire.write([bytes(65536)])
        clock.start(0)
        while (
            wire.congested and clock.seconds(100) == 100
        ):  # until the client's machine has taken some of it
            assert await asyncio.to_thread(client.recv, 65536)
        assert wire.congested and clock.seconds(100) == 0
        clock.stop()
        assert clock.seconds(300) == 0


async def test_a_forward_session_that_ends_opens_nothing_more() -> None:
    quota, dialing = Quota(lambda: 2), asyncio.Event()
    peer = spdy.Connection(spdy.Role.CLIENT)

    def opening(name: bytes) -> memoryview:
        for kind in (b"error", b"data"):
            peer.open_stream([(b"streamtype", kind), (b"port", b"80"), (b"requestid", name)])
        return memoryview(peer.data_to_send())

    async def dial(port: int) -> socket.socket:
        dialing.set()
        try:
            await asyncio.Event().wait()
        finally:
            # The session waits for this, and its client knows nothing of that yet.
            wire.on_data(opening(b"second"))
            client.close()
        raise AssertionError("a dial that was cancelled went on")

    async with connected() as (wire, client):
        limits = ForwardLimits(buffer=65536, backlog=0, creation=30, idle=0)
        forward = ForwardSession(wire, SpdyPortForward(), limits, Traffic(), dial, quota)
        session = asyncio.ensure_future(forward.run(bytes(opening(b"first"))))
        await dialing.wait()
        session.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session
    assert [quota.take() for _ in range(3)] == [True, True, False]
