"""The HTTP side: tokens, refusals, limits and timeouts, on a real daemon without containers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from pathlib import Path

import grpc
import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych_dev import streamclient as client
from triptych_dev.streamclient import UpgradeRefused

pytestmark = pytest.mark.integration

PROCESS = b'{"args": ["true"]}'
EXEC = pb.OpenExecRequest(
    target=pb.Target(container_id="c1"),
    streams=pb.Streams(stdout=True),
    runtime_command=["/bin/false"],
    process=PROCESS,
)
FORWARD = pb.OpenPortForwardRequest(target=pb.Target(pod_sandbox_id="p1"))


@pytest.fixture
def daemon(shared_streaming):
    return shared_streaming


async def refused(url: str, *headers: str, method: str = "POST") -> UpgradeRefused:
    """How the server refuses."""
    protocols = client.FORWARD_PROTOCOLS if "/portforward/" in url else client.REMOTE_PROTOCOLS
    with pytest.raises(UpgradeRefused) as caught:
        async with client.connect_spdy(url, protocols, headers=headers or None, method=method):
            raise AssertionError("it was accepted")
    return caught.value


async def raw(url: str, request: bytes, seconds: float = 30.0) -> bytes:
    """Everything the server answers until it closes."""
    host, port = re.findall(r"//([^:/]+):(\d+)", url)[0]
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""
    finally:
        writer.close()


def test_urls_have_scheme_host_and_a_token_of_128_bits(daemon) -> None:
    urls = [daemon.stub.OpenExec(EXEC).url for _ in range(20)]
    assert len(set(urls)) == 20
    assert all(re.fullmatch(r"http://127\.0\.0\.1:\d+/exec/[A-Za-z0-9_-]{22}", url) for url in urls)
    tokens = {url.rpartition("/")[2] for url in urls}
    names = {path.name for path in (daemon.state / "sessions/waiting").iterdir()}
    assert not tokens & names and all(re.fullmatch("[0-9a-f]{64}", name) for name in names)
    contents = b"".join(path.read_bytes() for path in (daemon.state / "sessions/waiting").iterdir())
    assert not any(token.encode() in contents + daemon.log.read_bytes() for token in tokens)
    assert (daemon.state / "sessions/waiting").stat().st_mode & 0o777 == 0o700


async def test_wrong_used_and_expired_tokens_are_told_apart_by_nobody(start_streaming) -> None:
    daemon = start_streaming("[timeouts]\ntoken = 5\n")
    opened = daemon.stub.OpenPortForward(FORWARD)
    url = daemon.stub.OpenPortForward(FORWARD).url
    async with client.portforward_spdy(url):
        pass
    used = await refused(url)
    await asyncio.sleep(max(0, opened.expires_at - time.time_ns()) / 1e9 + 0.1)
    expired = await refused(opened.url, "Connection: close")
    begun = time.monotonic()
    wrong = await refused(url[:-3] + "AAA")
    assert time.monotonic() - begun > 0.4
    answers = {(each.status, each.head, str(each)) for each in (used, expired, wrong)}
    assert len(answers) == 1 and wrong.status == 404


async def test_a_token_of_another_kind(daemon) -> None:
    url = daemon.stub.OpenPortForward(FORWARD).url
    assert (await refused(url.replace("portforward", "exec"))).status == 404


@pytest.mark.parametrize("path", ["/", "/exec/", "/exec/short", "/logs/" + "a" * 22, "/exec/" + "a" * 23])
async def test_paths_that_lead_nowhere(daemon, path: str) -> None:
    base = daemon.stub.OpenExec(EXEC).url.split("/exec")[0]
    assert (await refused(base + path)).status == 404


async def test_a_prefix_and_a_query_are_allowed(start_streaming) -> None:
    daemon = start_streaming('[http]\nlisten = "127.0.0.1:0"\nadvertise = "http://node.example:1/base"\n')
    url = daemon.stub.OpenPortForward(FORWARD).url
    assert url.startswith("http://node.example:1/base/portforward/")
    port = re.findall(r'"url": "http://127\.0\.0\.1:(\d+)"|127\.0\.0\.1:(\d+)', daemon.log.read_text())
    assert port == []
    local = await _listening_port(daemon.pid)
    url = url.replace("node.example:1", f"127.0.0.1:{local}") + "?command=ls"
    async with client.portforward_spdy(url) as forwarder:
        assert forwarder.session.protocol == "portforward.k8s.io"


async def _listening_port(pid: int) -> int:
    """The TCP port that a process listens on."""
    inodes = {
        target[8:-1]
        for path in Path(f"/proc/{pid}/fd").iterdir()
        if (target := str(path.readlink())).startswith("socket:[")
    }
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            return int(fields[1].split(":")[1], 16)
    raise AssertionError("it listens nowhere")


async def test_no_upgrade_no_protocol_and_no_common_protocol(daemon) -> None:
    url = daemon.stub.OpenExec(EXEC).url
    assert (await refused(url, "Connection: close")).status == 400
    assert (await refused(url, "Connection: Upgrade", "Upgrade: h2c")).status == 400
    assert (await refused(url, "Connection: Upgrade", "Upgrade: SPDY/3.1")).status == 400
    no_common = await refused(
        url, "Connection: Upgrade", "Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v9, v8"
    )
    assert no_common.status == 403
    assert no_common.head.count("X-Accepted-Stream-Protocol-Versions: ") == 4
    websocket = [
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: " + "A" * 22 + "==",
        "Sec-WebSocket-Version: 13",
    ]
    unknown = await refused(url, *websocket, "Sec-WebSocket-Protocol: v9", method="GET")
    assert unknown.status == 403
    assert (await refused(url, *websocket[:3], method="GET")).status == 400
    assert (await refused(url, method="PUT")).status == 405
    # None of that used the token up.
    async with client.connect_spdy(url) as session:
        assert session.protocol == "v4.channel.k8s.io"


async def test_the_clients_order_wins_and_lists_with_commas_are_read(daemon) -> None:
    lines = ["Connection: Upgrade", "Upgrade: SPDY/3.1"]
    url = daemon.stub.OpenExec(EXEC).url
    accepted = ["X-Stream-Protocol-Version: v5.channel.k8s.io, v3.channel.k8s.io,v4.channel.k8s.io"]
    async with client.connect_spdy(url, headers=lines + accepted) as session:
        assert session.protocol == "v3.channel.k8s.io"


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /" + b"a" * 40000],
)
async def test_no_http(daemon, request_bytes: bytes) -> None:
    base = daemon.stub.OpenExec(EXEC).url
    answer = await raw(base, request_bytes + b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 4\d\d ", answer)


async def test_silent_and_slow_handshakes_are_dropped(start_streaming) -> None:
    daemon = start_streaming("[timeouts]\nhandshake = 0.3\n")
    url = daemon.stub.OpenExec(EXEC).url
    assert await raw(url, b"") == b""
    assert await raw(url, b"POST /exec/") == b""


async def test_the_oldest_handshake_makes_room(start_streaming) -> None:
    daemon = start_streaming("[limits]\nhandshakes = 3\n")
    url = daemon.stub.OpenPortForward(FORWARD).url
    host, port = re.findall(r"//([^:/]+):(\d+)", url)[0]
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(6)]
    async with client.portforward_spdy(url):
        pass
    async with asyncio.timeout(30):
        for reader, _ in silent[:3]:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
    for _, writer in silent:
        writer.close()


async def test_a_limit_of_sessions(start_streaming, until) -> None:
    daemon = start_streaming("[limits]\nsessions = 1\n")
    urls = [daemon.stub.OpenPortForward(FORWARD).url for _ in range(2)]
    async with client.portforward_spdy(urls[0]):
        full = await refused(urls[1])
        assert full.status == 503 and "Retry-After" in full.head
    await until(lambda: not any(each.active for each in listed(daemon)))
    async with client.portforward_spdy(urls[1]):
        pass


def listed(daemon) -> list[pb.Session]:
    return list(daemon.stub.ListSessions(pb.ListSessionsRequest()).sessions)


def test_a_limit_of_tokens(start_streaming) -> None:
    daemon = start_streaming("[limits]\ntokens = 2\n[timeouts]\ntoken = 5\n")
    daemon.stub.OpenExec(EXEC)
    last = daemon.stub.OpenExec(EXEC)
    with pytest.raises(grpc.RpcError) as caught:
        daemon.stub.OpenExec(EXEC)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    time.sleep(max(0, last.expires_at - time.time_ns()) / 1e9 + 0.1)
    daemon.stub.OpenExec(EXEC)


@pytest.mark.parametrize(
    ("call", "request_message"),
    [
        (
            "OpenExec",
            pb.OpenExecRequest(streams=EXEC.streams, runtime_command=["x"], process=PROCESS),
        ),
        (
            "OpenExec",
            pb.OpenExecRequest(target=EXEC.target, runtime_command=["x"], process=PROCESS),
        ),
        (
            "OpenExec",
            pb.OpenExecRequest(target=EXEC.target, streams=EXEC.streams, process=PROCESS),
        ),
        ("OpenExec", pb.OpenExecRequest(target=EXEC.target, streams=EXEC.streams, runtime_command=["x"])),
        (
            "OpenExec",
            pb.OpenExecRequest(
                target=EXEC.target,
                streams=pb.Streams(stdout=True, stderr=True, tty=True),
                runtime_command=["x"],
                process=PROCESS,
            ),
        ),
        ("OpenAttach", pb.OpenAttachRequest(target=EXEC.target, streams=EXEC.streams)),
        ("OpenPortForward", pb.OpenPortForwardRequest()),
        ("OpenPortForward", pb.OpenPortForwardRequest(target=FORWARD.target, ports=[0])),
    ],
)
def test_bad_requests_are_invalid_arguments(daemon, call: str, request_message: object) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        getattr(daemon.stub, call)(request_message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_streams_that_never_come(daemon) -> None:
    url = daemon.stub.OpenExec(EXEC).url
    begun = time.monotonic()
    async with client.connect_spdy(url) as session:
        await session.open({"streamtype": "error"})
        async with asyncio.timeout(25):  # of the 30 s that it would be by default
            await session.closed.wait()
    assert time.monotonic() - begun > 0.8


async def test_an_idle_session_ends(start_streaming) -> None:
    daemon = start_streaming("[timeouts]\nidle = 3\n")
    url = daemon.stub.OpenPortForward(FORWARD).url
    async with client.portforward_spdy(url) as forwarder:
        for _ in range(20):
            await asyncio.sleep(0.2)
            forwarder.session.connection.ping()
            forwarder.session.flush()
        assert not forwarder.session.closed.is_set()
        async with asyncio.timeout(60):
            await forwarder.session.closed.wait()


async def test_list_sessions(daemon) -> None:
    waiting = daemon.stub.OpenPortForward(FORWARD)
    url = daemon.stub.OpenPortForward(FORWARD).url
    async with client.portforward_spdy(url):
        sessions = list(daemon.stub.ListSessions(pb.ListSessionsRequest()).sessions)
        active = [each for each in sessions if each.active]
        assert [each.protocol for each in active] == ["SPDY/3.1 portforward.k8s.io"]
        assert active[0].instance == daemon.pid and active[0].kind == pb.SESSION_KIND_PORT_FORWARD
        assert active[0].target.pod_sandbox_id == "p1"
        assert any(not each.active and each.created_at < waiting.expires_at for each in sessions)


async def test_garbage_after_the_upgrade_ends_the_session(daemon) -> None:
    url = daemon.stub.OpenPortForward(FORWARD).url
    async with client.connect_spdy(url, client.FORWARD_PROTOCOLS) as session:
        assert session.transport
        session.transport.write(b"\x80\x02" + bytes(30))
        async with asyncio.timeout(30):
            await session.closed.wait()


async def test_bytes_that_come_with_the_request_belong_to_the_session(daemon) -> None:
    import triptych_spdy as spdy

    url = daemon.stub.OpenPortForward(FORWARD).url
    peer = spdy.Connection(spdy.Role.CLIENT)
    peer.ping()
    token = url.rpartition("/")[2]
    request = (
        f"POST /portforward/{token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        "X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n"
    ).encode() + peer.data_to_send()
    host, port = re.findall(r"//([^:/]+):(\d+)", url)[0]
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head
    (event,) = peer.receive_data(await reader.readexactly(12))
    assert isinstance(event, spdy.PingAcknowledged)
    writer.close()
