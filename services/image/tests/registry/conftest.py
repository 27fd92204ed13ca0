"""A registry that can be told to misbehave, in process; certificates; clients."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import ipaddress
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from triptych_image.registry import RegistryClient, RegistrySettings
from triptych_oci import Digest, MediaType


@dataclass
class Seen:
    """A request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {key: values[-1] for key, values in parse_qs(urlsplit(self.target).query).items()}


class Wire:
    """The connection, for handlers that answer byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(
        self, status: int = 200, body: bytes = b"", *, head: bool = False, **headers: str
    ) -> None:
        """A complete response; header names with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("Content-Length", str(len(body)))
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in named.items())]
        await self.raw(("\r\n".join(lines) + "\r\n\r\n").encode() + (b"" if head else body))

    def reset(self) -> None:
        """End the connection with RST."""
        sock = self.writer.get_extra_info("socket")
        if isinstance(sock, socket.socket) or hasattr(sock, "setsockopt"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Handler = Callable[[Seen, Wire], Awaitable[bool | None]]


@dataclass
class FakeRegistry:
    """Serves manifests and blobs with ranges; hooks come first.

    A hook that returns False passes the request on; one that raises ConnectionAbortedError ends the
    connection.

    :ivar deaf_to: method whose requests are never read beyond the head.
    """

    host: str
    scheme: str
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    hooks: list[tuple[str, Handler]] = field(default_factory=list)
    ranges: bool = True
    deaf_to: str = ""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def hook(self, part: str, handler: Handler) -> None:
        """Let a handler answer requests whose target contains `part`; the latest hook is asked first."""
        self.hooks.insert(0, (part, handler))

    def add_blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[digest] = data
        return digest

    def add_manifest(self, data: bytes | dict[str, Any], *names: str, media_type: str = "") -> Digest:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        digest = Digest.of(raw)
        kind = media_type or MediaType.OCI_MANIFEST
        for name in (digest, *names):
            self.manifests[name] = (kind, raw)
        return digest

    def add_image(self, *layers: bytes, tag: str = "latest", architecture: str = "amd64") -> Digest:
        """A whole image; returns the manifest's digest."""
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer) for layer in layers]},
            }
        ).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MediaType.OCI_MANIFEST,
            "config": self.describe(config, MediaType.OCI_CONFIG),
            "layers": [self.describe(layer, MediaType.OCI_LAYER) for layer in layers],
        }
        return self.add_manifest(manifest, *([tag] if tag else []))

    def describe(self, data: bytes, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": self.add_blob(data), "size": len(data)}

    def paths(self, part: str = "") -> list[str]:
        return [one.path for one in self.seen if part in one.target]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while await self._serve_one(wire):
                pass
        writer.close()

    async def _serve_one(self, wire: Wire) -> bool:
        first = await wire.reader.readexactly(1)
        if first == b"\x16":  # a TLS hello: answer as Go's server does
            await wire.raw(
                b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server."
            )
            return False
        head = (first + await wire.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {}
        for line in filter(None, head[1:]):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if method == self.deaf_to:
            await asyncio.sleep(60)
        body = await wire.reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(method, target, headers, body)
        self.seen.append(seen)
        for part, handler in list(self.hooks):
            if part in target and await handler(seen, wire) is not False:
                return not wire.writer.is_closing()
        await self._default(seen, wire)
        return True

    async def _default(self, seen: Seen, wire: Wire) -> None:
        _, _, kind, name = seen.path.rsplit("/", 3) if seen.path.count("/") > 3 else ("", "", "", "")
        head = seen.method == "HEAD"
        if kind == "manifests" and name in self.manifests:
            media_type, raw = self.manifests[name]
            await wire.reply(
                200, raw, head=head, Content_Type=media_type, Docker_Content_Digest=Digest.of(raw)
            )
        elif kind == "blobs" and name in self.blobs:
            await self._blob(seen, wire, self.blobs[name], head)
        else:
            body = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
            await wire.reply(404, body, head=head, Content_Type="application/json")

    async def _blob(self, seen: Seen, wire: Wire, data: bytes, head: bool) -> None:
        wanted = seen.headers.get("range")
        if not wanted or not self.ranges:
            extra = {"Accept-Ranges": "bytes"} if self.ranges else {}
            await wire.reply(200, data, head=head, **extra)
            return
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        first, last = int(start), min(int(end or len(data) - 1), len(data) - 1)
        part = data[first : last + 1]
        await wire.reply(206, part, Content_Range=f"bytes {first}-{last}/{len(data)}")


ServeRegistry = Callable[..., Awaitable[FakeRegistry]]


@pytest.fixture
async def serve() -> AsyncIterator[ServeRegistry]:
    """Start registries on loopback; `await serve(tls=context)` for HTTPS."""
    servers: list[asyncio.Server] = []
    connections: set[asyncio.Task[None]] = set()

    async def start(tls: ssl.SSLContext | None = None) -> FakeRegistry:
        registry = FakeRegistry("", "https" if tls else "http")

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await registry.serve(reader, writer)
            except asyncio.CancelledError:
                writer.transport.abort()
            finally:
                connections.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        registry.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return registry

    yield start
    for server in servers:
        server.close()
    for task in list(connections):
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


@pytest.fixture
async def client_for(tmp_path: Path) -> AsyncIterator[Callable[..., RegistryClient]]:
    """Make clients; `certs` below tmp_path is their config_path. Tests of limits set their own."""
    clients: list[RegistryClient] = []

    def make(**settings: Any) -> RegistryClient:
        usual: dict[str, Any] = {
            "config_path": (str(tmp_path / "certs"),),
            "auth_files": (str(tmp_path / "auth.json"),),
            "response_seconds": 20.0,
            "stall_seconds": 10.0,
            "host_seconds": 30.0,
            "no_progress_seconds": 60.0,
            "attempts": 3,
            "proxy_environment": False,
        }
        client = RegistryClient(RegistrySettings(**{**usual, **settings}))
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def hosts_toml(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write `certs/<registry>/hosts.toml`."""

    def write(registry: str, text: str) -> Path:
        directory = tmp_path / "certs" / registry
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts.toml").write_text(text)
        return directory

    return write


@dataclass
class Certificates:
    """A CA, a server certificate for 127.0.0.1 and localhost, and a client certificate."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    def pair(self, name: str) -> tuple[Path, Path]:
        return self.directory / f"{name}.cert", self.directory / f"{name}.key"

    def server_context(self, *, verify_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pair("server"))
        if verify_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates that live for the test run."""
    directory = tmp_path_factory.mktemp("pki")
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "triptych test CA")])
    _write(directory / "ca.crt", _certificate(ca_name, ca_name, ca_key, ca_key, ca=True), None)
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = _certificate(subject, ca_name, key, ca_key, ca=False)
        _write(directory / f"{name}.cert", certificate, key)
    return Certificates(directory)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("localhost"),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _write(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    if key is not None:
        path.with_suffix(".key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


@pytest.fixture
def noise() -> Callable[[int], bytes]:
    """Bytes that tell where they belong."""

    def make(size: int) -> bytes:
        return b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(size // 32 + 1))[:size]

    return make
