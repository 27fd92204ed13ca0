"""Restart, scale and failure of instances, with sockets passed as systemd passes them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych.streaming.v1 import streaming_pb2_grpc
from triptych_dev import streamclient as client
from triptych_dev.patience import PATIENCE

pytestmark = pytest.mark.integration

FORWARD = pb.OpenPortForwardRequest(target=pb.Target(pod_sandbox_id="p1"))


@pytest.fixture
def passed(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    """The two listening sockets that the service manager holds."""
    http = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    http.bind(("127.0.0.1", 0))
    http.listen(1024)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(str(tmp_path / "streaming.sock"))
    control.listen(512)
    yield {"grpc": control, "http": http}
    http.close()
    control.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """The service manager's notification socket, and the environment that names it."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(20)
    yield notify, {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    notify.close()


@pytest.fixture
async def mirror() -> AsyncIterator[int]:
    """A port of the host that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@contextlib.asynccontextmanager
async def stub(path: Path) -> AsyncIterator[streaming_pb2_grpc.StreamingServiceStub]:
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        yield streaming_pb2_grpc.StreamingServiceStub(channel)


async def url_of(service: streaming_pb2_grpc.StreamingServiceStub) -> str:
    for _ in range(50):
        try:
            opening: Any = service.OpenPortForward(FORWARD, timeout=20, wait_for_ready=True)
            return str((await opening).url)
        except grpc.aio.AioRpcError as error:
            # What every gRPC client does with a call that met the end of its connection.
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
    raise AssertionError("no URL")


async def round_trip(forward: client.Forward, data: bytes) -> None:
    await forward.data.write(data)
    async with asyncio.timeout(60 * PATIENCE):
        assert await forward.data.read_until(data) == data


async def test_restart_under_load(start_streaming, passed, manager, mirror, until, tmp_path: Path) -> None:
    notify, environment = manager
    control = tmp_path / "streaming.sock"

    def start():
        daemon = start_streaming(sockets=passed, control=control, env=environment, wait=False)
        while b"READY=1" not in notify.recv(4096):
            continue
        return daemon

    old = await asyncio.to_thread(start)
    (inner,) = old.children()
    done = 0
    stop = asyncio.Event()

    async def load(service: streaming_pb2_grpc.StreamingServiceStub) -> None:
        nonlocal done
        while not stop.is_set():
            async with client.portforward_spdy(await url_of(service)) as forwarder:
                await round_trip(await forwarder.connect(mirror), b"load")
            done += 1

    async with stub(control) as service, asyncio.TaskGroup() as tasks:
        long_lived = client.portforward_spdy(await url_of(service))
        given_out = await url_of(service)
        async with long_lived as forwarder:
            running = await forwarder.connect(mirror)
            await round_trip(running, b"before")
            for _ in range(4):
                tasks.create_task(load(service))
            for _ in range(2):
                before = done
                await until(lambda: done > before + 20)  # noqa: B023
                old.process.send_signal(signal.SIGTERM)
                # The session goes on: only a stand-in that does not wait for it ends.
                assert await asyncio.to_thread(old.process.wait, PATIENCE * 60) == 0
                await round_trip(running, b"drained")
                old = await asyncio.to_thread(start)
            before = done
            await until(lambda: done > before + 20)
            stop.set()
            async with client.portforward_spdy(given_out) as other:
                await round_trip(await other.connect(mirror), b"given out before")
            await round_trip(running, b"after")
            assert Path(f"/proc/{inner}").exists()
    await until(lambda: not Path(f"/proc/{inner}").exists())


async def test_a_drain_has_a_limit_and_a_second_signal_ends_it(start_streaming, mirror, until) -> None:
    for setting, signals in (("drain = 0.5", 1), ("drain = 1000", 2)):
        daemon = start_streaming(f"[timeouts]\n{setting}\n")
        async with client.portforward_spdy(daemon.stub.OpenPortForward(FORWARD).url) as forwarder:
            await round_trip(await forwarder.connect(mirror), b"x")
            for _ in range(signals):
                daemon.process.send_signal(signal.SIGTERM)
                await until(lambda: "draining" in daemon.log.read_text())  # noqa: B023
            async with asyncio.timeout(60 * PATIENCE):
                await forwarder.session.closed.wait()
            assert await asyncio.to_thread(daemon.process.wait, 60 * PATIENCE) == 0


async def test_a_draining_process_leaves_its_paths_to_the_next(
    start_streaming, mirror, until, tmp_path
) -> None:
    control = tmp_path / "control.sock"
    old = start_streaming(control=control)
    url = old.stub.OpenPortForward(FORWARD).url
    listen = url.split("/")[2]
    given_out = old.stub.OpenPortForward(FORWARD).url
    async with client.portforward_spdy(url) as forwarder:
        running = await forwarder.connect(mirror)
        await round_trip(running, b"x")
        old.process.send_signal(signal.SIGTERM)
        await until(lambda: not control.exists())
        start_streaming(control=control, listen=listen)
        async with client.portforward_spdy(given_out) as other:
            await round_trip(await other.connect(mirror), b"y")
        await round_trip(running, b"z")
    assert await asyncio.to_thread(old.process.wait, 60 * PATIENCE) == 0


async def test_any_instance_takes_a_url_and_one_that_dies_takes_its_own_sessions_only(
    start_streaming, passed, mirror, until, tmp_path: Path
) -> None:
    control = tmp_path / "streaming.sock"
    daemons = [start_streaming(sockets=passed, control=control) for _ in range(3)]
    async with stub(control) as service, contextlib.AsyncExitStack() as stack:
        sessions = []
        for _ in range(24):
            manager_ = client.portforward_spdy(await url_of(service))
            forwarder = await stack.enter_async_context(manager_)
            sessions.append((forwarder, await forwarder.connect(mirror)))
            await round_trip(sessions[-1][1], b"open")
        counts = [len(_listeners_sessions(daemon.pid, mirror)) for daemon in daemons]
        assert sum(counts) == 24
        victim = max(range(3), key=counts.__getitem__)
        os.kill(daemons[victim].pid, signal.SIGKILL)
        await until(lambda: sum(f.session.closed.is_set() for f, _ in sessions) == counts[victim])
        for forwarder, pair in sessions:
            if not forwarder.session.closed.is_set():
                await round_trip(pair, b"alive")
        for _ in range(6):
            async with client.portforward_spdy(await url_of(service)) as forwarder:
                await round_trip(await forwarder.connect(mirror), b"new")


def _listeners_sessions(pid: int, port: int) -> list[str]:
    """Connections of a process to a port."""
    inodes = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(path)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [f[9] for f in lines if int(f[2].split(":")[1], 16) == port and f[9] in inodes]


async def test_instances_share_an_address_by_reuseport(start_streaming, mirror) -> None:
    first = start_streaming()
    listen = first.stub.OpenPortForward(FORWARD).url.split("/")[2]
    second = start_streaming(listen=listen)
    for daemon in (first, second) * 4:
        async with client.portforward_spdy(daemon.stub.OpenPortForward(FORWARD).url) as forwarder:
            await round_trip(await forwarder.connect(mirror), b"x")


def test_plain_http_on_the_network_is_refused(start_streaming) -> None:
    daemon = start_streaming(listen="0.0.0.0:0", wait=False)
    assert daemon.process.wait(60 * PATIENCE) == 78
    assert "http.insecure" in daemon.log.read_text()
    daemon = start_streaming('[http]\nlisten = "0.0.0.0:0"\ninsecure = true\n')
    assert daemon.stub.OpenPortForward(FORWARD).url.startswith("http://127.0.0.1:")


def test_an_address_that_is_none(start_streaming) -> None:
    # Addresses that are none end the daemon for good; one that the machine does not have may come.
    for listen, status in (
        ("nonsense", 78),
        ("127.0.0.1:99999", 78),
        ("host.example:80", 78),
        ("192.0.2.1:80", 1),
    ):
        daemon = start_streaming(f'[http]\nlisten = "{listen}"\ninsecure = true\n', wait=False)
        assert daemon.process.wait(60 * PATIENCE) == status
        assert "http.listen" in daemon.log.read_text()


async def test_the_stand_in_ends_as_its_daemon_does(start_streaming, manager) -> None:
    notify, environment = manager
    daemon = start_streaming("[http]\nlisten = 5\n", env=environment, wait=False)
    assert await asyncio.to_thread(daemon.process.wait, 60 * PATIENCE) == 78
    daemon = start_streaming(env=environment, wait=False)
    while b"READY=1" not in await asyncio.to_thread(notify.recv, 4096):
        continue
    (inner,) = daemon.children()
    os.kill(inner, signal.SIGKILL)
    assert await asyncio.to_thread(daemon.process.wait, 60 * PATIENCE) == 128 + signal.SIGKILL


async def test_a_daemon_whose_stand_in_was_killed_ends_too(start_streaming, manager, until) -> None:
    notify, environment = manager
    daemon = start_streaming(env=environment, wait=False)
    while b"READY=1" not in await asyncio.to_thread(notify.recv, 4096):
        continue
    (inner,) = daemon.children()
    os.kill(daemon.process.pid, signal.SIGKILL)
    await asyncio.to_thread(daemon.process.wait, 60 * PATIENCE)
    await until(lambda: not Path(f"/proc/{inner}").exists() or _is_zombie(inner))


def _is_zombie(pid: int) -> bool:
    """Ended, and not reaped yet by whoever inherited it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
