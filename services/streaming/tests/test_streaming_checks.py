"""What the streaming daemon refuses in its settings, and what it takes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from triptych_streaming.checks import check
from triptych_streaming.settings import HttpSettings, Settings, TlsSettings


def problems(http: HttpSettings) -> dict[str, str]:
    return {problem.key: problem.text for problem in check(Settings(http=http))}


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:10010", "127.0.0.2:0", "[::1]:10010", "localhost:1", ":10010"]
)
def test_loopback_needs_no_certificate(listen: str) -> None:
    assert not problems(HttpSettings(listen=listen))


@pytest.mark.parametrize(
    "listen", ["nonsense", "", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:x", "node-1:10010"]
)
def test_an_address_that_is_none_is_told(listen: str) -> None:
    found = problems(HttpSettings(listen=listen))
    assert list(found) == ["http.listen"]
    assert found["http.listen"].startswith("expected ")
    assert repr(listen) in found["http.listen"]


@pytest.mark.parametrize("listen", ["0.0.0.0:10010", "[::]:10010", "10.0.0.5:10010"])
def test_other_addresses_need_a_certificate_or_trust(listen: str) -> None:
    assert "set tls.certificate, or http.insecure" in problems(HttpSettings(listen=listen))["http.listen"]
    assert not problems(HttpSettings(listen=listen, insecure=True))


def test_every_mistake_is_told(tmp_path: Path) -> None:
    settings = Settings(
        http=HttpSettings(listen="x", advertise="node-1:10010"),
        tls=TlsSettings(certificate=str(tmp_path / "none.pem")),
    )
    assert [problem.key for problem in check(settings)] == [
        "tls.certificate",
        "http.listen",
        "http.advertise",
    ]
    assert not problems(HttpSettings(advertise="https://node-1:10010/stream"))


@pytest.mark.parametrize("name", ["token", "handshake", "creation", "exec_start", "dial"])
def test_no_time_at_all_is_none_for_what_takes_some(start_streaming, name: str) -> None:
    daemon = start_streaming(f"[timeouts]\n{name} = 0\n", wait=False)
    assert daemon.process.wait(60) == 78
    assert f"timeouts.{name}" in daemon.log.read_text()


def test_a_passed_socket_that_shows_sessions_stops_the_start_for_good(start_streaming) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        daemon = start_streaming(sockets={"http": listener}, wait=False)
        assert daemon.process.wait(60) == 78
    assert "the socket passed as `http`: plain HTTP on 0.0.0.0" in daemon.log.read_text()


def test_a_passed_socket_that_nobody_takes_from_is_told(start_streaming) -> None:
    with socket.create_server(("127.0.0.1", 0)) as http, socket.create_server(("127.0.0.1", 0)) as other:
        daemon = start_streaming(sockets={"http": http, "other": other})
    (line,) = [each for each in daemon.log.read_text().splitlines() if "passed socket" in each]
    assert "is not served" in line and '"socket": "other"' in line
