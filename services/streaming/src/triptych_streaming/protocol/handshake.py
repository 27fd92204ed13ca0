"""The HTTP request that opens a session, and the answers to it. No I/O: h11 parses, this judges."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import h11
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request as WebSocketRequest
from websockets.server import ServerProtocol

from triptych_streaming.errors import HandshakeRefused
from triptych_streaming.protocol.channels import Buffer
from triptych_streaming.protocol.negotiation import Kind, negotiate_spdy, negotiate_websocket

MAX_HEAD = 16 << 10
"""Bytes of an HTTP request up to its empty line."""

_PATH = re.compile(r"(?:/[^?#]*)?/(exec|attach|portforward)/([A-Za-z0-9_-]{22})/?(?:\?.*)?")


class Transport(enum.Enum):
    """What the connection becomes."""

    SPDY = "SPDY/3.1"
    WEBSOCKET = "WebSocket"


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A request for a session, not yet judged.

    :param early: bytes that arrived behind the request; they belong to the session's protocol.
    """

    kind: Kind
    token: str
    method: str
    target: str
    http_version: str
    headers: tuple[tuple[str, str], ...]
    early: bytes

    def values(self, name: str) -> list[str]:
        """The comma-separated values of all headers of that name (lower case)."""
        found = [value for key, value in self.headers if key == name]
        return [part for value in found for each in value.split(",") if (part := each.strip())]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A request that may become a session.

    :param protocol: the negotiated one; "" for a WebSocket without subprotocol.
    :param response: the whole 101 answer.
    """

    transport: Transport
    protocol: str
    response: bytes


class RequestReader:
    """Collects one HTTP request."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._request: h11.Request | None = None

    def feed(self, data: Buffer) -> SessionRequest | None:
        """Take bytes; None while the request is not whole.

        :raises HandshakeRefused: not HTTP, too large, or a path that names no session.
        """
        try:
            self._http.receive_data(bytes(data))
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Request):
                    self._request = event
                elif isinstance(event, h11.EndOfMessage):
                    break
                elif isinstance(event, h11.ConnectionClosed):
                    raise HandshakeRefused(400, "the request ended early")
                elif event is h11.NEED_DATA:
                    return None
                elif event is h11.PAUSED:
                    break
        except h11.RemoteProtocolError as error:
            raise HandshakeRefused(error.error_status_hint, f"bad request: {error}") from error
        assert self._request is not None
        return _session_request(self._request, bytes(self._http.trailing_data[0]))


def _session_request(request: h11.Request, early: bytes) -> SessionRequest:
    target = request.target.decode("latin-1")
    match = _PATH.fullmatch(target)
    if match is None:
        raise not_found()
    if request.method not in (b"GET", b"POST"):
        raise HandshakeRefused(405, "GET or POST", [("Allow", "GET, POST")])
    return SessionRequest(
        Kind(match[1]),
        match[2],
        request.method.decode("ascii"),
        target,
        request.http_version.decode("ascii"),
        tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.headers),
        early,
    )


def not_found() -> HandshakeRefused:
    """The one answer to a path or token that leads nowhere, whatever the reason."""
    return HandshakeRefused(404, "no such session: its token is unknown, was used, or has expired")


def judge(request: SessionRequest) -> Acceptance:
    """Negotiate.

    :raises HandshakeRefused: with the status that Kubernetes' own server answers in that case.
    """
    upgrades = [value.lower() for value in request.values("upgrade")]
    if "upgrade" not in (value.lower() for value in request.values("connection")) or not upgrades:
        raise HandshakeRefused(400, "an upgrade to SPDY/3.1 or WebSocket is required")
    if "websocket" in upgrades:
        return _websocket(request)
    if "spdy/3.1" in upgrades:
        protocol = negotiate_spdy(request.kind, request.values("x-stream-protocol-version"))
        head = [("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", protocol)]
        return Acceptance(Transport.SPDY, protocol, _switching(head))
    raise HandshakeRefused(400, f"no known upgrade in {request.values('upgrade')}: SPDY/3.1 or websocket")


def _websocket(request: SessionRequest) -> Acceptance:
    try:
        # Kubernetes' names of subprotocols hold a slash, which the checker's strict grammar refuses.
        fields = Headers(pair for pair in request.headers if pair[0] != "sec-websocket-protocol")
        accept, _, _ = ServerProtocol().process_request(
            WebSocketRequest(request.target, fields, request.method, f"HTTP/{request.http_version}")
        )
    except InvalidHandshake as error:
        raise HandshakeRefused(400, f"bad WebSocket handshake: {error}") from error
    protocol = negotiate_websocket(request.kind, request.values("sec-websocket-protocol"))
    head = [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept)]
    if protocol:
        head.append(("Sec-WebSocket-Protocol", protocol))
    return Acceptance(Transport.WEBSOCKET, protocol, _switching(head))


def _switching(headers: Iterable[tuple[str, str]]) -> bytes:
    return _response(101, [("Connection", "Upgrade"), *headers], b"")


def refusal(refused: HandshakeRefused) -> bytes:
    """The whole answer to a refused request."""
    body = f"{refused}\n".encode()
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("X-Content-Type-Options", "nosniff"),
        ("Connection", "close"),
        *refused.headers,
    ]
    return _response(refused.status, headers, body)


def _response(status: int, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
