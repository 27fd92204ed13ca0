"""TLS: own CA, client certificates, plain HTTP where it may be, proxies and tunnels."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from triptych_image.registry import InvalidHostsConfig, RegistryUnavailable, UnexpectedResponse
from triptych_oci import Descriptor, MediaType, Reference


async def resolve(client: Any, name: str) -> Any:
    async with client.repository(Reference.parse(name)) as repository:
        return await repository.resolve()


async def test_own_ca(serve: Any, client_for: Any, hosts_toml: Any, certificates: Any) -> None:
    registry = await serve(tls=certificates.server_context())
    registry.add_image(b"layer")
    hosts_toml(registry.host, f'server = "{registry.url}"\nca = "{certificates.ca}"\n')
    assert (await resolve(client_for(), f"{registry.host}/app")).host == registry.host


async def test_unknown_ca(serve: Any, client_for: Any, hosts_toml: Any, certificates: Any) -> None:
    registry = await serve(tls=certificates.server_context())
    registry.add_image(b"layer")
    hosts_toml(registry.host, f'server = "{registry.url}"\n')
    with pytest.raises(RegistryUnavailable, match="TLS: .*certificate"):
        await resolve(client_for(), f"{registry.host}/app")
    assert registry.seen == []


async def test_skip_verify(serve: Any, client_for: Any, hosts_toml: Any, certificates: Any) -> None:
    registry = await serve(tls=certificates.server_context())
    registry.add_image(b"layer")
    hosts_toml(registry.host, f'server = "{registry.url}"\nskip_verify = true\n')
    await resolve(client_for(), f"{registry.host}/app")


async def test_loopback_needs_no_certificate(serve: Any, client_for: Any, certificates: Any) -> None:
    registry = await serve(tls=certificates.server_context())
    registry.add_image(b"layer")
    await resolve(client_for(), f"{registry.host}/app")


async def test_client_certificate(serve: Any, client_for: Any, hosts_toml: Any, certificates: Any) -> None:
    registry = await serve(tls=certificates.server_context(verify_client=True))
    registry.add_image(b"layer")
    text = f'server = "{registry.url}"\nca = "{certificates.ca}"\n'
    hosts_toml(registry.host, text)
    with pytest.raises(RegistryUnavailable):
        await resolve(client_for(attempts=1), f"{registry.host}/app")
    certificate, key = certificates.pair("client")
    hosts_toml(registry.host, f'{text}client = [["{certificate}", "{key}"]]\n')
    await resolve(client_for(), f"{registry.host}/app")


async def test_client_certificate_in_one_file_of_dockers_layout(
    serve: Any, client_for: Any, certificates: Any, tmp_path: Path
) -> None:
    registry = await serve(tls=certificates.server_context(verify_client=True))
    registry.add_image(b"layer")
    directory = tmp_path / "certs" / registry.host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(certificates.ca.read_bytes())
    (directory / "me.cert").write_bytes(b"".join(path.read_bytes() for path in certificates.pair("client")))
    await resolve(client_for(), f"{registry.host}/app")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('ca = "missing.pem"', "missing.pem"),
        ('ca = "bad.pem"', "bad.pem"),
        ('client = "bad.pem"', "bad.pem"),
        ('client = [["bad.pem", "missing.key"]]', "missing.key"),
    ],
)
async def test_certificate_files_that_do_not_work_are_named(
    client_for: Any, hosts_toml: Any, line: str, named: str
) -> None:
    directory = hosts_toml("quay.io", f'server = "https://127.0.0.1:1"\n{line}\n')
    (directory / "bad.pem").write_text("no certificate")
    with pytest.raises(InvalidHostsConfig, match=str(directory / named)):
        await resolve(client_for(), "quay.io/app")


async def test_replaced_ca_is_seen(serve: Any, client_for: Any, hosts_toml: Any, certificates: Any) -> None:
    registry = await serve(tls=certificates.server_context())
    registry.add_image(b"layer")
    directory = hosts_toml(registry.host, f'server = "{registry.url}"\nca = "ca.pem"\n')
    (directory / "ca.pem").write_bytes(certificates.pair("client")[0].read_bytes())
    client = client_for()
    with pytest.raises(RegistryUnavailable):
        await resolve(client, f"{registry.host}/app")
    (directory / "ca.pem").write_bytes(certificates.ca.read_bytes())
    os.utime(directory / "ca.pem", ns=(1, 1))
    await resolve(client, f"{registry.host}/app")


async def test_https_elsewhere_never_falls_back(serve: Any, client_for: Any, hosts_toml: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    hosts_toml(registry.host, f'server = "https://{registry.host}"\n')
    with pytest.raises(RegistryUnavailable, match="TLS"):
        await resolve(client_for(), f"{registry.host}/app")
    assert registry.seen == []


async def test_blob_over_tls_into_a_pipe(serve: Any, client_for: Any, certificates: Any, noise: Any) -> None:
    registry = await serve(tls=certificates.server_context())
    data = noise(5 << 20)
    blob = Descriptor(MediaType.OCI_LAYER, registry.add_blob(data), len(data))
    reader, writer = os.pipe()

    def drain() -> bytes:
        with os.fdopen(reader, "rb") as pipe:
            return pipe.read()

    drained = asyncio.ensure_future(asyncio.to_thread(drain))
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        stats = await repository.copy_blob_to_fd(blob, writer)
        os.close(writer)
        assert await drained == data
        assert stats.spliced == 0
        async with aclosing(repository.open_blob(blob)) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == data


async def test_client_certificate_is_not_shown_to_redirect_targets(
    serve: Any, client_for: Any, hosts_toml: Any, certificates: Any
) -> None:
    registry = await serve(tls=certificates.server_context())
    context = certificates.server_context()
    context.verify_mode = __import__("ssl").CERT_OPTIONAL
    context.load_verify_locations(certificates.ca)
    storage = await serve(tls=context)
    digest = storage.add_blob(b"content")
    shown: list[Any] = []

    async def redirect(seen: Any, wire: Any) -> None:
        await wire.reply(307, Location=f"{storage.url}/v2/app/blobs/{digest}")

    async def note(seen: Any, wire: Any) -> bool:
        shown.append(wire.writer.get_extra_info("ssl_object").getpeercert())
        return False

    registry.hook("/blobs/", redirect)
    storage.hook("/blobs/", note)
    certificate, key = certificates.pair("client")
    hosts_toml(
        registry.host,
        f'server = "{registry.url}"\nca = "{certificates.ca}"\nclient = [["{certificate}", "{key}"]]\n',
    )
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        blob = Descriptor(MediaType.OCI_CONFIG, digest, len(b"content"))
        assert await repository.fetch_blob(blob) == b"content"
    assert not any(shown)
    assert len(shown) == 1


async def start_proxy(registry: Any) -> tuple[asyncio.Server, list[str]]:
    """An HTTP proxy that leads everything to one registry; notes first lines and credentials."""
    lines: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines.extend(
            line
            for line in head.decode().split("\r\n")
            if line.startswith(("CONNECT", "GET", "Proxy-Authorization"))
        )
        host, _, port = registry.host.rpartition(":")
        upstream_reader, upstream = await asyncio.open_connection(host, int(port))
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            upstream.write(head.replace(b"GET http://registry.example", b"GET ", 1))
        for one in (pipe(reader, upstream), pipe(upstream_reader, writer)):
            tasks.add(asyncio.ensure_future(one))

    return await asyncio.start_server(accept, "127.0.0.1", 0), lines


@pytest.mark.parametrize("tls", [True, False])
async def test_proxy(
    serve: Any,
    client_for: Any,
    hosts_toml: Any,
    certificates: Any,
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
) -> None:
    registry = await serve(tls=certificates.server_context() if tls else None)
    registry.add_image(b"layer")
    proxy, lines = await start_proxy(registry)
    port = proxy.sockets[0].getsockname()[1]
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://me:pw@127.0.0.1:{port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    scheme = "https" if tls else "http"
    hosts_toml("registry.example", f'server = "{scheme}://registry.example"\nskip_verify = true\n')
    await resolve(client_for(proxy_environment=True), "registry.example/app")
    expected = (
        "CONNECT registry.example:443 HTTP/1.1"
        if tls
        else "GET http://registry.example/v2/app/manifests/latest HTTP/1.1"
    )
    assert lines == [expected, "Proxy-Authorization: Basic bWU6cHc="]
    assert all("proxy-authorization" not in one.headers for one in registry.seen) or not tls
    proxy.close()


async def test_proxy_that_refuses(client_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(RegistryUnavailable, match="CONNECT refused: HTTP/1.1 407"):
        await resolve(client_for(proxy_environment=True, attempts=1), "registry.example/app")
    proxy.close()


@pytest.mark.parametrize("what", ["manifest", "blob"])
async def test_redirect_out_of_tls_is_for_what_a_digest_vouches_for(
    serve: Any, client_for: Any, hosts_toml: Any, certificates: Any, what: str
) -> None:
    registry, plain = await serve(tls=certificates.server_context()), await serve()
    plain.add_image(b"layer")
    hosts_toml(registry.host, f'server = "{registry.url}"\nca = "{certificates.ca}"\n')

    async def redirect(seen: Any, wire: Any) -> None:
        await wire.reply(307, Location=f"{plain.url}{seen.target}")

    registry.hook("/v2/", redirect)
    if what == "manifest":
        with pytest.raises(UnexpectedResponse, match="redirects from https to http"):
            await resolve(client_for(), f"{registry.host}/app")
        return
    blob = Descriptor(MediaType.OCI_CONFIG, plain.add_blob(b"content"), len(b"content"))
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        assert await repository.fetch_blob(blob) == b"content"
