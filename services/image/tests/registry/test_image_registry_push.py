"""Uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from triptych_image.registry import (
    AccessDenied,
    ContentMismatch,
    ContentNotFound,
    Credentials,
    RegistryUnavailable,
    UnexpectedResponse,
)
from triptych_oci import Descriptor, Digest, MediaType, Reference


def accept_uploads(registry: Any, location: str = "/v2/app/blobs/uploads/1?state=abc") -> None:
    async def start(seen: Any, wire: Any) -> bool | None:
        if seen.method == "POST" and seen.query.get("mount") in registry.blobs:
            await wire.reply(201, Location="/x")
        elif seen.method == "POST":
            await wire.reply(202, Location=location)
        elif seen.method == "PUT":
            registry.blobs[seen.query["digest"]] = seen.body
            await wire.reply(201)
        else:
            return False
        return None

    async def manifest(seen: Any, wire: Any) -> bool | None:
        if seen.method != "PUT":
            return False
        digest = registry.add_manifest(seen.body, media_type=seen.headers["content-type"])
        await wire.reply(201, Docker_Content_Digest=digest)
        return None

    registry.hook("/blobs/uploads/", start)
    registry.hook("/manifests/", manifest)


def source_of(data: bytes) -> Any:
    async def source() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    return source


def blob_of(data: bytes) -> Descriptor:
    return Descriptor(MediaType.OCI_LAYER, Digest.of(data), len(data))


async def test_blob_goes_up_once(serve: Any, client_for: Any, noise: Any) -> None:
    registry = await serve()
    accept_uploads(registry)
    data = noise(1_000_000)
    counted: list[int] = []
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        assert await repository.push_blob(blob_of(data), source_of(data), progress=counted.append)
        assert not await repository.push_blob(blob_of(data), source_of(data))
        assert await repository.has_blob(blob_of(data))
        assert not await repository.has_blob(blob_of(b"other"))
    assert registry.blobs[Digest.of(data)] == data
    assert sum(counted) == len(data)
    put = next(one for one in registry.seen if one.method == "PUT")
    assert put.query == {"state": "abc", "digest": Digest.of(data)}


async def test_blob_is_mounted_from_another_repository(serve: Any, client_for: Any, noise: Any) -> None:
    registry = await serve()
    accept_uploads(registry)
    data = noise(1000)
    registry.add_blob(data)

    async def not_here(seen: Any, wire: Any) -> bool | None:
        if seen.method != "HEAD":
            return False
        await wire.reply(404, head=True)
        return None

    registry.hook("/blobs/sha256", not_here)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        assert not await repository.push_blob(blob_of(data), source_of(data), mount_from="team/base")
    post = next(one for one in registry.seen if one.method == "POST")
    assert post.query == {"mount": Digest.of(data), "from": "team/base"}
    assert not any(one.method == "PUT" for one in registry.seen)


async def test_mount_asks_for_both_scopes(serve: Any, client_for: Any, noise: Any) -> None:
    registry = await serve()
    accept_uploads(registry)
    scopes: list[str] = []

    async def check(seen: Any, wire: Any) -> bool | None:
        if "authorization" in seen.headers:
            return False
        await wire.reply(401, WWW_Authenticate=f'Bearer realm="{registry.url}/token"', head=True)
        return None

    async def token(seen: Any, wire: Any) -> None:
        scopes.append(seen.target)
        await wire.reply(200, b'{"token": "tok"}')

    registry.hook("/v2/", check)
    registry.hook("/token", token)
    data = noise(10)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        await repository.push_blob(blob_of(data), source_of(data), mount_from="base")
    assert "scope=repository%3Aapp%3Apull%2Cpush" in scopes[0]
    assert "scope=repository%3Abase%3Apull" in scopes[-1]


async def test_upload_elsewhere_brings_no_credentials(serve: Any, client_for: Any, noise: Any) -> None:
    registry, storage = await serve(), await serve()
    accept_uploads(storage)
    accept_uploads(registry, location=f"{storage.url}/v2/app/blobs/uploads/9")

    async def check(seen: Any, wire: Any) -> bool | None:
        if "authorization" in seen.headers:
            return False
        await wire.reply(401, WWW_Authenticate="Basic", head=seen.method == "HEAD")
        return None

    registry.hook("/v2/", check)
    data = noise(10)
    credentials = Credentials("me", "secret")
    async with client_for().repository(Reference.parse(f"{registry.host}/app"), credentials) as repository:
        await repository.push_blob(blob_of(data), source_of(data))
    assert storage.blobs[Digest.of(data)] == data
    assert "authorization" not in storage.seen[0].headers


async def test_manifest_goes_up(serve: Any, client_for: Any) -> None:
    registry = await serve()
    accept_uploads(registry)
    data = b'{"schemaVersion": 2}'
    async with client_for().repository(Reference.parse(f"{registry.host}/app:v1")) as repository:
        assert await repository.push_manifest(data, MediaType.OCI_MANIFEST) == Digest.of(data)
    assert registry.seen[-1].path == "/v2/app/manifests/v1"
    assert registry.seen[-1].headers["content-type"] == MediaType.OCI_MANIFEST


async def test_manifest_stored_as_something_else(serve: Any, client_for: Any) -> None:
    registry = await serve()

    async def lie(seen: Any, wire: Any) -> None:
        await wire.reply(201, Docker_Content_Digest=Digest.of(b"other"))

    registry.hook("/manifests/", lie)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        with pytest.raises(ContentMismatch, match="stored manifest"):
            await repository.push_manifest(b"{}", MediaType.OCI_MANIFEST)


async def test_push_without_permission(serve: Any, client_for: Any, noise: Any) -> None:
    registry = await serve()

    async def forbid(seen: Any, wire: Any) -> bool | None:
        if seen.method == "HEAD":
            return False
        await wire.reply(403, b'{"errors":[{"code":"DENIED","message":"read only"}]}')
        return None

    registry.hook("/v2/", forbid)
    data = noise(10)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        with pytest.raises(AccessDenied, match="^push access denied.*read only"):
            await repository.push_blob(blob_of(data), source_of(data))


async def test_refused_upload_says_why(serve: Any, client_for: Any, noise: Any) -> None:
    registry = await serve()
    accept_uploads(registry)

    async def refuse(seen: Any, wire: Any) -> bool | None:
        if seen.method != "PUT":
            return False
        await wire.reply(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"not that"}]}')
        return None

    registry.hook("/blobs/uploads/", refuse)
    data = noise(10)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        with pytest.raises(UnexpectedResponse, match="digest_invalid: not that"):
            await repository.push_blob(blob_of(data), source_of(data))


async def test_push_host_needs_the_capability(client_for: Any, hosts_toml: Any, noise: Any) -> None:
    hosts_toml("registry.example", 'server = "http://127.0.0.1:1"\ncapabilities = ["pull", "resolve"]\n')
    async with client_for().repository(Reference.parse("registry.example/app")) as repository:
        with pytest.raises(ContentNotFound, match="no host is configured"):
            await repository.has_blob(blob_of(noise(1)))


async def test_upload_that_nobody_reads_ends(serve: Any, client_for: Any, noise: Any) -> None:
    registry = await serve()
    accept_uploads(registry)
    data = noise(1_000_000)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield data

    registry.deaf_to = "PUT"
    blob = Descriptor(MediaType.OCI_LAYER, Digest.of(b"x"), 1 << 40)
    client = client_for(attempts=1, stall_seconds=1.0)
    async with client.repository(Reference.parse(f"{registry.host}/app")) as repository:
        async with asyncio.timeout(60):
            with pytest.raises(RegistryUnavailable, match="timed out"):
                await repository.push_blob(blob, endless)
