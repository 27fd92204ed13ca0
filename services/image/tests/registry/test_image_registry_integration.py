"""Against Debian's docker-registry: push, pull, mount, tokens, pull-through cache, TLS."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from triptych_image.registry import AccessDenied, ContentNotFound, Credentials
from triptych_oci import Descriptor, Digest, MediaType, Platform, PlatformMatcher, Reference, encode

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]

MATCHER = PlatformMatcher(Platform("linux", "amd64"))
Start = Callable[..., Awaitable[str]]


@pytest.fixture
async def start_registry(tmp_path: Path) -> AsyncIterator[Start]:
    """Start registries on free ports; further configuration as a dict."""
    children: list[subprocess.Popen[bytes]] = []

    async def start(**more: Any) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{probe.getsockname()[1]}"
        directory = tmp_path / f"registry-{len(children)}"
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(directory)}},
            "http": {"addr": host, **more.pop("http", {})},
            **more,
        }
        file = tmp_path / f"registry-{len(children)}.yml"
        file.write_text(json.dumps(config))
        environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        children.append(
            subprocess.Popen(
                ["docker-registry", "serve", str(file)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        )
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2])), timeout=1):
                    return host
            except OSError:
                await asyncio.sleep(0.05)
        raise AssertionError("docker-registry did not come up")

    yield start
    for child in children:
        child.kill()
        child.wait()


async def push_image(client: Any, name: str, layer: bytes, credentials: Any = None) -> Digest:
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer)]},
        }
    ).encode()

    def source(data: bytes) -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        return chunks

    async with client.repository(Reference.parse(name), credentials) as repository:
        described = []
        for data, media_type in ((config, MediaType.OCI_CONFIG), (layer, MediaType.OCI_LAYER)):
            blob = Descriptor(media_type, Digest.of(data), len(data))
            described.append(json.loads(encode(blob)))
            await repository.push_blob(blob, source(data))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MediaType.OCI_MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
        digest: Digest = await repository.push_manifest(
            json.dumps(manifest).encode(), MediaType.OCI_MANIFEST
        )
    return digest


async def pull_image(client: Any, name: str, credentials: Any = None) -> tuple[Digest, bytes, str]:
    async with client.repository(Reference.parse(name), credentials) as repository:
        top = await repository.resolve()
        chosen = await repository.select(top, MATCHER)
        (layer,) = chosen.document.layers
        data = b"".join([chunk async for chunk in repository.open_blob(layer)])
        assert layer.digest.matches(data)
        await repository.fetch_blob(chosen.document.config)
    return top.descriptor.digest, data, top.host


async def test_push_pull_and_mount(start_registry: Start, client_for: Any, noise: Any) -> None:
    host = await start_registry()
    client = client_for()
    layer = noise(5_000_000)
    digest = await push_image(client, f"{host}/team/app:v1", layer)
    assert await pull_image(client, f"{host}/team/app:v1") == (digest, layer, host)
    async with client.repository(Reference.parse(f"{host}/other")) as other:
        blob = Descriptor(MediaType.OCI_LAYER, Digest.of(layer), len(layer))
        assert not await other.has_blob(blob)

        async def never() -> AsyncIterator[bytes]:
            raise AssertionError("the blob was to be mounted")
            yield b""

        assert not await other.push_blob(blob, never, mount_from="team/app")
        assert await other.has_blob(blob)
        assert await other.referrers(digest) == []
    with pytest.raises(ContentNotFound, match="manifest_unknown"):
        await pull_image(client, f"{host}/team/app:v2")


async def test_token_flow(start_registry: Start, serve: Any, client_for: Any, noise: Any) -> None:
    tokens = await serve()

    async def token(seen: Any, wire: Any) -> None:
        if not seen.headers.get("authorization", "").startswith("Basic "):
            await wire.reply(401)
            return
        await wire.reply(200, b'{"token": "anything", "expires_in": 300}')

    tokens.hook("/token", token)
    host = await start_registry(auth={"silly": {"realm": f"{tokens.url}/token", "service": "silly"}})
    client = client_for()
    layer = noise(100_000)
    credentials = Credentials("me", "secret")
    digest = await push_image(client, f"{host}/app:v1", layer, credentials)
    assert await pull_image(client, f"{host}/app:v1", credentials) == (digest, layer, host)
    with pytest.raises(AccessDenied):
        await pull_image(client_for(), f"{host}/app:v1")


async def test_pull_through_cache(
    start_registry: Start, client_for: Any, hosts_toml: Any, noise: Any
) -> None:
    upstream = await start_registry()
    layer = noise(300_000)
    digest = await push_image(client_for(), f"{upstream}/app:v1", layer)
    cache = await start_registry(proxy={"remoteurl": f"http://{upstream}"})
    hosts_toml(
        upstream,
        f'server = "http://{upstream}"\n[host."http://{cache}"]\ncapabilities = ["pull", "resolve"]\n',
    )
    assert await pull_image(client_for(), f"{upstream}/app:v1") == (digest, layer, cache)


async def test_tls_with_client_certificate(
    start_registry: Start, client_for: Any, hosts_toml: Any, certificates: Any, noise: Any
) -> None:
    certificate, key = certificates.pair("server")
    tls = {"certificate": str(certificate), "key": str(key), "clientcas": [str(certificates.ca)]}
    host = await start_registry(http={"tls": tls})
    mine, my_key = certificates.pair("client")
    hosts_toml(
        host,
        f'server = "https://{host}"\nca = "{certificates.ca}"\nclient = [["{mine}", "{my_key}"]]\n',
    )
    layer = noise(2_000_000)
    digest = await push_image(client_for(), f"{host}/app:v1", layer)
    assert await pull_image(client_for(), f"{host}/app:v1") == (digest, layer, host)


async def test_resume_from_offset(start_registry: Start, client_for: Any, noise: Any) -> None:
    host = await start_registry()
    layer = noise(3_000_000)
    await push_image(client_for(), f"{host}/app:v1", layer)
    async with client_for().repository(Reference.parse(f"{host}/app:v1")) as repository:
        blob = Descriptor(MediaType.OCI_LAYER, Digest.of(layer), len(layer))
        rest = [chunk async for chunk in repository.open_blob(blob, offset=1_234_567)]
    assert b"".join(rest) == layer[1_234_567:]
