"""TLS: versions, client certificates, and renewal without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from triptych.streaming.v1 import streaming_pb2 as pb
from triptych_dev import streamclient as client
from triptych_dev.patience import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.requires("openssl")]

CLOSE_SECONDS = 5.0
FORWARD = pb.OpenPortForwardRequest(target=pb.Target(pod_sandbox_id="p1"))


@dataclass(frozen=True, slots=True)
class Pair:
    certificate: Path
    key: Path


def make_pair(directory: Path, name: str, ca: Pair | None = None) -> Pair:
    """A certificate for 127.0.0.1, self-signed or by an authority."""
    pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(pair.key), "-out", str(pair.certificate),
    ]  # fmt: skip
    if ca is not None:
        command += ["-CA", str(ca.certificate), "-CAkey", str(ca.key)]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return pair


def trusting(pair: Pair, own: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pair.certificate))
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


async def works(daemon, context: ssl.SSLContext) -> str:
    """Opens a session; gives the TLS version."""
    url = daemon.stub.OpenPortForward(FORWARD).url
    assert url.startswith("https://")
    async with client.portforward_spdy(url, tls=context) as forwarder:
        forwarder.session.connection.ping()
        forwarder.session.flush()
        assert forwarder.session.transport
        tls = forwarder.session.transport.get_extra_info("ssl_object")
        return str(tls.version())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
async def test_sessions_and_versions(start_streaming, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "server")
    daemon = start_streaming(f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n')
    assert await works(daemon, trusting(pair)) == "TLSv1.3"
    old = trusting(pair)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await works(daemon, old) == "TLSv1.2"
    ancient = trusting(pair)
    ancient.minimum_version = ancient.maximum_version = ssl.TLSVersion.TLSv1_1
    ancient.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await works(daemon, ancient)


async def test_a_client_that_leaves_is_no_cause_for_a_warning(start_streaming, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "server")
    daemon = start_streaming(f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n')
    for _ in range(3):
        await works(daemon, trusting(pair))
    assert await until_logged(daemon, "session ended")
    daemon.stop()
    levels = [json.loads(line)["level"] for line in daemon.log.read_text().splitlines()]
    assert set(levels) <= {"info", "debug"}


async def test_much_data_both_ways(start_streaming, container, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "server")
    daemon = start_streaming(f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n')
    data = bytes(range(256)) * 20_000
    url = daemon.stub.OpenExec(container.exec_request("/bin/cat", stdin=True)).url
    result = await client.exec_spdy(url, data, tls=trusting(pair))
    assert result.stdout == data and result.exit_code == 0
    url = daemon.stub.OpenExec(container.exec_request("/bin/cat", stdin=True)).url
    result = await client.exec_websocket(url, data, tls=trusting(pair))
    assert result.stdout == data and result.exit_code == 0
    # No close waits for its timeout.
    begun = time.monotonic()
    for _ in range(20):
        url = daemon.stub.OpenExec(container.exec_request("/bin/true", pod="brief")).url
        await client.exec_websocket(url, tls=trusting(pair))
    assert time.monotonic() - begun < 20 * CLOSE_SECONDS


async def test_client_certificates(start_streaming, tmp_path: Path) -> None:
    pair, authority = make_pair(tmp_path, "server"), make_pair(tmp_path, "authority")
    kubelet, stranger = make_pair(tmp_path, "kubelet", authority), make_pair(tmp_path, "stranger")
    daemon = start_streaming(
        f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
        f'client_ca = "{authority.certificate}"\n'
    )
    assert await works(daemon, trusting(pair, kubelet))
    for context in (trusting(pair), trusting(pair, stranger)):
        with pytest.raises(Exception, match=r"(?i)certificate|closed|reset|alert"):
            await works(daemon, context)


@pytest.mark.parametrize("by_signal", [True, False])
async def test_renewed_certificates_are_taken(start_streaming, tmp_path: Path, by_signal: bool) -> None:
    pair = make_pair(tmp_path, "server")
    daemon = start_streaming(f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n')
    before = trusting(pair)
    assert await works(daemon, before)
    if by_signal:
        pair.certificate.write_text("nothing\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert await until_logged(daemon, "reload refused, the old settings stay")
        assert await works(daemon, before)
    make_pair(tmp_path, "server")
    after = trusting(pair)
    if by_signal:
        daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60 * PATIENCE
    while True:
        try:
            assert await works(daemon, after)
            break
        except ssl.SSLError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
    with pytest.raises(ssl.SSLError):
        await works(daemon, before)


async def until_logged(daemon, text: str) -> bool:
    for _ in range(int(1000 * PATIENCE)):
        if text in daemon.log.read_text():
            return True
        await asyncio.sleep(0.02)
    return False


async def test_sighup_changes_limits(start_streaming, tmp_path: Path) -> None:
    daemon = start_streaming("[timeouts]\ntoken = 60\n")
    config = tmp_path / "s0.toml"
    config.write_text(config.read_text().replace("token = 60", "token = 30"))
    daemon.process.send_signal(signal.SIGHUP)
    assert await until_logged(daemon, "setting changed")
    opened = daemon.stub.OpenPortForward(FORWARD)
    assert 3e9 < opened.expires_at - time.time_ns() <= 30e9


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ('key = "/nowhere"', "`tls.key`: expected tls.certificate beside it"),
        ('client_ca = "/nowhere"', "`tls.client_ca`: expected tls.certificate beside it"),
        ('certificate = "/nowhere"', "`tls.certificate`: expected a PEM file, got /nowhere: No such file"),
        ('certificate = "/dev/null"\nkey = "/nowhere"', "`tls.key`: expected a PEM file, got /nowhere: No"),
        (
            'certificate = "/dev/null"',
            "`tls.certificate`: expected a certificate and its key in PEM, got /dev",
        ),
    ],
)
def test_unfit_files_stop_the_start(start_streaming, tmp_path: Path, tls: str, message: str) -> None:
    daemon = start_streaming(f"[tls]\n{tls}\n", wait=False)
    assert daemon.process.wait(20) == 78
    assert f"{tmp_path}/s0.toml: {message}" in daemon.log.read_text()


async def test_a_tls_handshake_that_does_not_come_is_dropped(start_streaming, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "server")
    daemon = start_streaming(
        f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n[timeouts]\nhandshake = 2\n'
    )
    url = daemon.stub.OpenPortForward(FORWARD).url
    port = int(url.split("/")[2].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(30 * PATIENCE):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    assert await works(daemon, trusting(pair))
