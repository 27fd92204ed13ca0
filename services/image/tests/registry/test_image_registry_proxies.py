"""Proxies by HTTP_PROXY, HTTPS_PROXY and NO_PROXY: plain, over TLS, and SOCKS5."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from triptych_image.registry import RegistryUnavailable
from triptych_image.registry.http.origin import Origin
from triptych_image.registry.http.proxies import InvalidProxy, Proxy, ProxyKind, proxy_for
from triptych_oci import Descriptor, MediaType, Reference


def origin(url: str) -> Origin:
    return Origin.parse(url)[0]


def test_proxy_by_scheme() -> None:
    environment = {"HTTPS_PROXY": "http://me:s%20p@proxy:3128", "http_proxy": "other:8080"}
    secure = proxy_for(origin("https://quay.io"), environment)
    assert secure == Proxy(ProxyKind.HTTP, "proxy", 3128, "me", "s p")
    assert secure.authorization == "Basic bWU6cyBw"
    assert "s p" not in repr(secure) and "me" not in repr(secure)
    assert proxy_for(origin("http://quay.io"), environment) == Proxy(ProxyKind.HTTP, "other", 8080)
    assert proxy_for(origin("https://localhost:5000"), environment) is None
    assert proxy_for(origin("https://127.0.0.2"), environment) is None
    assert proxy_for(origin("https://quay.io"), {}) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://proxy", Proxy(ProxyKind.HTTP, "proxy", 80)),
        ("https://proxy", Proxy(ProxyKind.HTTPS, "proxy", 443)),
        ("https://me@proxy:8443", Proxy(ProxyKind.HTTPS, "proxy", 8443, "me")),
        ("socks5://proxy", Proxy(ProxyKind.SOCKS5, "proxy", 1080)),
        ("socks5h://me:pw@[fd00::1]:9", Proxy(ProxyKind.SOCKS5, "fd00::1", 9, "me", "pw")),
    ],
)
def test_kinds_of_proxies(value: str, expected: Proxy) -> None:
    assert proxy_for(origin("https://quay.io"), {"HTTPS_PROXY": value}) == expected


@pytest.mark.parametrize(
    ("rules", "url", "excluded"),
    [
        ("*", "https://quay.io", True),
        ("quay.io", "https://quay.io", True),
        ("quay.io", "https://cdn.quay.io", True),
        ("quay.io", "https://notquay.io", False),
        (".quay.io", "https://quay.io", False),
        (".quay.io", "https://cdn.quay.io", True),
        ("*.quay.io", "https://cdn.quay.io", True),
        ("quay.io:8443", "https://quay.io", False),
        ("quay.io:443", "https://quay.io", True),
        (" a , quay.io ", "https://quay.io", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3", "https://10.1.2.3:5000", True),
        ("[fd00::1]:5000", "https://[fd00::1]:5000", True),
        ("fd00::/8", "https://[fd00::1]", True),
        ("10.0.0.0/99", "https://10.1.2.3", False),
        ("10.0.0.0/8", "https://ten.example", False),
        ("10.1.2.3:443", "https://10.1.2.3", True),
        ("10.1.2.3:5000", "https://10.1.2.3", False),
        (".quay.io:443", "https://cdn.quay.io", True),
        (".quay.io:444", "https://cdn.quay.io", False),
        ("QUAY.io", "https://Quay.IO", True),
        ("1.2.3", "https://10.1.2.3", False),
        ("", "https://quay.io", False),
    ],
)
def test_no_proxy(rules: str, url: str, excluded: bool) -> None:
    environment = {"HTTPS_PROXY": "http://proxy", "NO_PROXY": rules}
    assert (proxy_for(origin(url), environment) is None) is excluded


@pytest.mark.parametrize(
    "value",
    [
        "socks4://proxy",
        "ftp://proxy",
        "http://",
        "http://x:y",
        "http://a..b",
        "socks5://me@proxy",
        f"socks5://{'a' * 256}:b@p",
    ],
)
def test_proxies_that_do_not_work_are_named(value: str) -> None:
    with pytest.raises(InvalidProxy, match="HTTPS_PROXY"):
        proxy_for(origin("https://quay.io"), {"HTTPS_PROXY": value})


@dataclass
class FakeProxy:
    """A proxy that leads everything to one registry.

    :ivar asked: what it was asked for: request lines, or SOCKS targets.
    :ivar logins: credentials as they came.
    :ivar refuse: what it answers instead of serving.
    """

    upstream: tuple[str, int]
    login: tuple[bytes, bytes] | None = None
    refuse: bytes = b""
    port: int = 0
    asked: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        head = await (self._socks(reader, writer) if first == b"\x05" else self._http(first, reader, writer))
        if head is None:
            return
        upstream_reader, upstream = await asyncio.open_connection(*self.upstream)
        upstream.write(head)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(reader, upstream))
            group.create_task(_pipe(upstream_reader, writer))

    async def _http(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        if first == b"\x16":  # a TLS hello: answer as Go's server does
            writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            return None
        head = first + await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.asked.append(lines[0])
        self.logins += [line.split(": ")[1] for line in lines if line.startswith("Proxy-Authorization")]
        if self.refuse:
            writer.write(self.refuse)
            return None
        if not head.startswith(b"CONNECT"):
            return head.replace(b"GET http://registry.example", b"GET ", 1)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return b""

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        wanted = 2 if self.login else 0
        writer.write(bytes((5, wanted if wanted in methods else 255)))
        if self.login:
            sizes = await reader.readexactly(2)
            user = await reader.readexactly(sizes[1])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            self.logins.append(f"{user.decode()}:{password.decode()}")
            writer.write(bytes((1, 0 if (user, password) == self.login else 1)))
        _, _, _, kind = await reader.readexactly(4)
        size = {1: 4, 3: 0, 4: 16}[kind] or (await reader.readexactly(1))[0]
        host, port = await reader.readexactly(size), await reader.readexactly(2)
        self.asked.append(f"{kind} {host.decode('latin-1')}:{int.from_bytes(port, 'big')}")
        writer.write(self.refuse or b"\x05\0\0\x03\x01x\0\0")
        return None if self.refuse else b""


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


StartProxy = Callable[..., Awaitable[FakeProxy]]


@pytest.fixture
async def start_proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartProxy]:
    """Start a proxy to a registry and name it in the environment."""
    servers: list[asyncio.Server] = []
    connections: set[asyncio.Task[None]] = set()

    async def start(
        registry: Any, url: str, *, tls: ssl.SSLContext | None = None, **options: Any
    ) -> FakeProxy:
        host, _, port = registry.host.rpartition(":")
        proxy = FakeProxy((host, int(port)), **options)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await proxy.serve(reader, writer)
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        proxy.port = server.sockets[0].getsockname()[1]
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, url.replace("PROXY", f"127.0.0.1:{proxy.port}"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        return proxy

    yield start
    for server in servers:
        server.close()
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


async def resolve(client: Any, name: str) -> Any:
    async with client.repository(Reference.parse(name)) as repository:
        return await repository.resolve()


PLAIN, SECURE = "http://registry.example", "https://registry.example"


@pytest.mark.parametrize("server", [PLAIN, SECURE])
@pytest.mark.parametrize("proxy_url", ["http://me:pw@PROXY", "https://me:pw@PROXY"])
async def test_http_proxies(
    serve: Any,
    client_for: Any,
    hosts_toml: Any,
    certificates: Any,
    start_proxy: StartProxy,
    noise: Any,
    server: str,
    proxy_url: str,
) -> None:
    registry = await serve(tls=certificates.server_context() if server == SECURE else None)
    registry.add_image(b"layer")
    data = noise(3 << 20)
    blob = Descriptor(MediaType.OCI_LAYER, registry.add_blob(data), len(data))
    outer = certificates.server_context() if proxy_url.startswith("https") else None
    proxy = await start_proxy(registry, proxy_url, tls=outer)
    skip = "skip_verify = true\n" if server == SECURE else ""
    hosts_toml("registry.example", f'server = "{server}"\nca = "{certificates.ca}"\n{skip}')
    client = client_for(proxy_environment=True)
    async with client.repository(Reference.parse("registry.example/app")) as repository:
        await repository.resolve()
        async with aclosing(repository.open_blob(blob)) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == data
    expected = "CONNECT registry.example:443 HTTP/1.1"
    if server == PLAIN:
        expected = "GET http://registry.example/v2/app/manifests/latest HTTP/1.1"
    assert proxy.asked[0] == expected
    assert set(proxy.logins) == {"Basic bWU6cHc="}
    assert server == PLAIN or all("proxy-authorization" not in one.headers for one in registry.seen)


@pytest.mark.parametrize("server", [PLAIN, SECURE, "https://10.1.2.3", "https://[fd00::1]:5000"])
@pytest.mark.parametrize("login", [None, (b"me", b"pw")])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_socks_proxies(
    serve: Any,
    client_for: Any,
    hosts_toml: Any,
    certificates: Any,
    start_proxy: StartProxy,
    server: str,
    login: Any,
    scheme: str,
) -> None:
    registry = await serve(tls=None if server == PLAIN else certificates.server_context())
    registry.add_image(b"layer")
    proxy = await start_proxy(registry, f"{scheme}://{'me:pw@' if login else ''}PROXY", login=login)
    hosts_toml(
        "registry.example", f'server = "{server}"\n' + ("" if server == PLAIN else "skip_verify = true\n")
    )
    await resolve(client_for(proxy_environment=True), "registry.example/app")
    assert proxy.asked == [
        {
            PLAIN: "3 registry.example:80",
            SECURE: "3 registry.example:443",
            "https://10.1.2.3": "1 \n\x01\x02\x03:443",
            "https://[fd00::1]:5000": f"4 \xfd{chr(0) * 14}\x01:5000",
        }[server]
    ]
    assert proxy.logins == (["me:pw"] if login else [])
    assert "proxy-authorization" not in registry.seen[0].headers


@pytest.mark.parametrize(
    ("url", "options", "reason"),
    [
        ("http://PROXY", {"refuse": b"HTTP/1.1 407 No\r\n\r\n"}, "CONNECT refused: HTTP/1.1 407"),
        ("http://PROXY", {"refuse": b"no"}, "no answer to CONNECT"),
        ("socks5://PROXY", {"refuse": b"\x05\x02\0\x01"}, "SOCKS5: not allowed by its rules"),
        ("socks5://PROXY", {"refuse": b"\x05\0\0\x09"}, "unknown type 9"),
        ("socks5://PROXY", {"refuse": b"\x05"}, "connection closed"),
        ("socks5://PROXY", {"refuse": b"HTTP/1.1 400"}, "does not speak SOCKS5"),
        ("socks5://PROXY", {"login": (b"me", b"pw")}, "wants a login"),
        ("socks5://me:wrong@PROXY", {"login": (b"me", b"pw")}, "login is not accepted"),
        ("https://PROXY", {}, "TLS: "),
    ],
)
async def test_proxies_that_refuse(
    serve: Any, client_for: Any, start_proxy: StartProxy, url: str, options: Any, reason: str
) -> None:
    await start_proxy(await serve(), url, **options)
    with pytest.raises(RegistryUnavailable, match=f"proxy 127.0.0.1: .*{reason}"):
        await resolve(client_for(proxy_environment=True, attempts=1), "registry.example/app")


async def test_proxy_of_an_unknown_ca(
    serve: Any, client_for: Any, hosts_toml: Any, certificates: Any, start_proxy: StartProxy
) -> None:
    """What a host skips is not skipped for the proxy, which is told the password of its URL."""
    proxy = await start_proxy(await serve(), "https://me:pw@PROXY", tls=certificates.server_context())
    hosts_toml("registry.example", 'server = "https://registry.example"\nskip_verify = true\n')
    with pytest.raises(RegistryUnavailable, match="proxy 127.0.0.1: TLS: .*issuer"):
        await resolve(client_for(proxy_environment=True, attempts=1), "registry.example/app")
    assert proxy.asked == []
