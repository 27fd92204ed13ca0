"""Clients that others wrote: crictl, and the `kubernetes` package."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from kubernetes.stream import ws_client
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych.streaming.v1 import streaming_pb2 as pb

pytestmark = pytest.mark.integration

CRICTL = os.environ.get("TRIPTYCH_TEST_CRICTL") or shutil.which("crictl")


@pytest.fixture
def daemon(shared_streaming):
    return shared_streaming


def open_ws(url: str, *, binary: bool = False) -> ws_client.WSClient:
    """The client of `kubernetes.stream.stream`, on a URL of our own."""
    configuration = SimpleNamespace(
        verify_ssl=False, ssl_ca_cert=None, cert_file=None, key_file=None, assert_hostname=None,
        tls_server_name=None, proxy=None, proxy_headers=None, no_proxy=None,
    )  # fmt: skip
    assert ssl.HAS_SNI
    return ws_client.WSClient(
        configuration, url.replace("http", "ws", 1), {}, capture_all=True, binary=binary
    )


def test_kubernetes_package_exec(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.shell("echo out; echo err >&2; exit 7")).url
    client = open_ws(url)
    client.run_forever(timeout=60)
    assert (client.read_stdout(), client.read_stderr()) == ("out\n", "err\n")
    assert client.returncode == 7


def test_kubernetes_package_interactive(daemon, container) -> None:
    request = container.exec_request("/bin/sh", stdin=True, tty=True)
    client = open_ws(daemon.stub.OpenExec(request).url)
    client.write_channel(ws_client.RESIZE_CHANNEL, '{"Width":99,"Height":44}')
    client.write_stdin("stty -echo; stty size\n")
    seen = ""
    deadline = time.monotonic() + 60
    while "44 99" not in seen and time.monotonic() < deadline:
        client.update(timeout=1)
        seen += client.read_stdout(timeout=1)
    assert "44 99" in seen
    client.write_stdin("exit 3\n")
    client.run_forever(timeout=60)
    assert client.returncode == 3


def test_kubernetes_package_binary(daemon, container) -> None:
    url = daemon.stub.OpenExec(container.shell("printf '\\377\\000\\001'", stderr=False)).url
    client = open_ws(url, binary=True)
    client.run_forever(timeout=60)
    assert client.read_stdout() == b"\xff\0\1"


class Runtime(api_pb2_grpc.RuntimeServiceServicer, api_pb2_grpc.ImageServiceServicer):
    """As much of a CRI runtime as crictl asks for on its way to a URL."""

    def __init__(self, streaming, *containers) -> None:
        self._stub = streaming.stub
        self.containers = {container.id: container for container in containers}

    def Version(self, request, context):
        return api_pb2.VersionResponse(
            version="0.1.0", runtime_name="test", runtime_version="1", runtime_api_version="v1"
        )

    def ImageFsInfo(self, request, context):
        return api_pb2.ImageFsInfoResponse()

    def ContainerStatus(self, request, context):
        status = api_pb2.ContainerStatus(id=request.container_id, state=api_pb2.CONTAINER_RUNNING)
        return api_pb2.ContainerStatusResponse(status=status)

    def Exec(self, request, context):
        message = self.containers[request.container_id].exec_request(
            *request.cmd, stdin=request.stdin, stderr=request.stderr, tty=request.tty
        )
        return api_pb2.ExecResponse(url=self._stub.OpenExec(message).url)

    def Attach(self, request, context):
        container = self.containers[request.container_id]
        message = container.attach_request(stdin=request.stdin, tty=request.tty)
        return api_pb2.AttachResponse(url=self._stub.OpenAttach(message).url)

    def PortForward(self, request, context):
        message = pb.OpenPortForwardRequest(target=pb.Target(pod_sandbox_id="pod"))
        return api_pb2.PortForwardResponse(url=self._stub.OpenPortForward(message).url)


@pytest.fixture
def runtime(daemon, container) -> Runtime:
    return Runtime(daemon, container)  # type: ignore[abstract]


@pytest.fixture
def crictl(runtime: Runtime, tmp_path: Path) -> Iterator[list[str]]:
    """The command line of crictl on a runtime that answers with this daemon's URLs."""
    if CRICTL is None:
        pytest.skip("no crictl in PATH or TRIPTYCH_TEST_CRICTL; Debian has no package of it")
    server = grpc.server(futures.ThreadPoolExecutor(4))
    api_pb2_grpc.add_RuntimeServiceServicer_to_server(runtime, server)
    api_pb2_grpc.add_ImageServiceServicer_to_server(runtime, server)
    path = tmp_path / "cri.sock"
    server.add_insecure_port(f"unix:{path}")
    server.start()
    config = tmp_path / "crictl.yaml"
    config.write_text("timeout: 20\n")
    yield [CRICTL, "--config", str(config), "--runtime-endpoint", f"unix://{path}"]
    server.stop(0)


TRANSPORTS = pytest.mark.parametrize("transport", ["spdy", "websocket"])


@TRANSPORTS
def test_crictl_exec(crictl, container, transport: str) -> None:
    script = "cat; echo err >&2; exit 7"
    command = [*crictl, "exec", "--transport", transport, "-i", container.id, "/bin/sh", "-c", script]
    done = subprocess.run(command, input=b"from stdin\n", capture_output=True, timeout=60)
    assert done.stdout == b"from stdin\n" and done.stderr.startswith(b"err\n")
    assert b"exit code 7" in done.stderr


@TRANSPORTS
def test_crictl_exec_with_a_terminal(crictl, container, transport: str) -> None:
    # The size comes behind the start, as with every runtime.
    inner = [*crictl, "exec", "--transport", transport, "-it", container.id]
    inner += [
        "/bin/sh",
        "-c",
        "'while true; do set -- $(stty size); [ $2 = 97 ] && break; sleep 0.1; done; stty size'",
    ]
    command = ["script", "--quiet", "--return", "--command", "stty rows 31 cols 97; " + " ".join(inner)]
    done = subprocess.run([*command, "/dev/null"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.returncode == 0 and b"31 97" in done.stdout, done


@TRANSPORTS
def test_crictl_attach(runtime: Runtime, make_container, crictl, transport: str) -> None:
    attached = make_container("/bin/sh", "-c", "read line; echo got $line; exit 0", stdin=True)
    runtime.containers[attached.id] = attached
    command = [*crictl, "attach", "--transport", transport, "-i", attached.id]
    done = subprocess.run(command, input=b"hello\n", capture_output=True, timeout=60)
    assert done.stdout == b"got hello\n", done


@asynccontextmanager
async def forwarding(crictl: list[str], transport: str, target: int) -> AsyncIterator[int]:
    """crictl at work, by the local port from which it forwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = probe.getsockname()[1]
    command = [*crictl, "port-forward", "--transport", transport, "pod", f"{local}:{target}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout
        async with asyncio.timeout(20):
            assert b"Forwarding from" in await process.stdout.readline()
        yield local
    finally:
        process.terminate()
        await process.wait()


@TRANSPORTS
async def test_crictl_port_forward(crictl, transport: str) -> None:
    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    server = await asyncio.start_server(mirror, "127.0.0.1", 0)
    async with forwarding(crictl, transport, server.sockets[0].getsockname()[1]) as local:
        for _ in range(3):
            data = os.urandom(300_000)
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(20):
                assert await reader.read() == data
            writer.close()
    server.close()


@TRANSPORTS
async def test_crictl_port_forward_outlives_a_connection_that_the_port_resets(
    crictl, transport: str
) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"r":
            taken = writer.get_extra_info("socket")
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            writer.write(b"fine")
        writer.close()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with forwarding(crictl, transport, server.sockets[0].getsockname()[1]) as local:
        for request, answer in ((b"r", b""), (b"f", b"fine"), (b"r", b""), (b"f", b"fine")):
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            writer.write(request)
            async with asyncio.timeout(20):
                assert await reader.read() == answer
            writer.close()
    server.close()
