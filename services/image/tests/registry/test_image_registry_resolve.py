"""Manifests: by tag and digest, through mirrors, from servers that lie."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from triptych_errors import Code, TriptychError
from triptych_image.registry import (
    AccessDenied,
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
    RegistrySettings,
    RegistryUnavailable,
    UnexpectedResponse,
)
from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.hosts import HostsConfig
from triptych_image.registry.walk import HostHealth, Walk
from triptych_oci import (
    Descriptor,
    Digest,
    InvalidDocument,
    MediaType,
    NoMatchingPlatform,
    Platform,
    PlatformMatcher,
    Reference,
    UnsupportedDocument,
)

AMD64 = PlatformMatcher(Platform("linux", "amd64"))


async def resolve(client: Any, name: str, **options: Any) -> Any:
    async with client.repository(Reference.parse(name), **options) as repository:
        return await repository.resolve()


async def test_tag_resolves_to_its_manifest(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer", tag="1.0")
    found = await resolve(client_for(), f"{registry.host}/app:1.0")
    assert found.descriptor.digest == digest
    assert found.descriptor.size == len(found.raw)
    assert found.host == registry.host
    assert [(one.method, one.path) for one in registry.seen] == [("GET", "/v2/app/manifests/1.0")]


async def test_tag_with_digest_asks_for_the_digest(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    await resolve(client_for(), f"{registry.host}/app:gone@{digest}")
    assert registry.paths() == [f"/v2/app/manifests/{digest}"]


async def test_stored_manifest_costs_a_head_only(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    raw = registry.manifests[digest][1]
    found = await resolve(client_for(), f"{registry.host}/app", stored={digest: raw}.get)
    assert found.descriptor.digest == digest
    assert [one.method for one in registry.seen] == ["HEAD"]


async def test_image_that_is_here_costs_a_head_only(serve: Any, client_for: Any) -> None:
    registry = await serve()
    index_of(registry, {"os": "linux", "architecture": "amd64"})
    here = {name: raw for name, (_, raw) in registry.manifests.items()} | registry.blobs
    reference = Reference.parse(f"{registry.host}/app")
    async with client_for().repository(reference, stored=here.get) as repository:
        chosen = await repository.select(await repository.resolve(), AMD64)
        await repository.fetch_blob(chosen.document.config)
    assert [one.method for one in registry.seen] == ["HEAD"]


async def test_damaged_copy_is_fetched_again(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    found = await resolve(client_for(), f"{registry.host}/app", stored={digest: b"damaged"}.get)
    assert found.descriptor.digest == digest
    assert [one.method for one in registry.seen] == ["HEAD", "GET"]


async def test_manifest_that_moved_on_is_fetched_after_the_head(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    found = await resolve(client_for(), f"{registry.host}/app", stored=lambda digest: None)
    assert found.descriptor.digest == digest
    assert [one.method for one in registry.seen] == ["HEAD", "GET"]


async def test_digest_of_another_manifest_is_refused(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    registry.manifests[digest] = (MediaType.OCI_MANIFEST, b'{"schemaVersion": 2}')
    with pytest.raises(ContentMismatch, match=digest):
        await resolve(client_for(), f"{registry.host}/app@{digest}")


async def test_claimed_digest_must_be_right(serve: Any, client_for: Any) -> None:
    registry = await serve()

    async def lie(seen: Any, wire: Any) -> None:
        await wire.reply(200, b'{"schemaVersion": 2}', Docker_Content_Digest=Digest.of(b"other"))

    registry.hook("/manifests/", lie)
    with pytest.raises(ContentMismatch):
        await resolve(client_for(), f"{registry.host}/app")


async def test_unknown_manifest_is_not_found(serve: Any, client_for: Any) -> None:
    registry = await serve()
    with pytest.raises(ContentNotFound, match="app:latest.*manifest unknown") as caught:
        await resolve(client_for(), f"{registry.host}/app")
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("length_known", [True, False])
async def test_ten_megabyte_manifest_is_refused(serve: Any, client_for: Any, length_known: bool) -> None:
    registry = await serve()

    async def huge(seen: Any, wire: Any) -> None:
        if length_known:
            await wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n")
        else:
            await wire.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(160):
            await wire.raw((b"" if length_known else b"10000\r\n") + bytes(65536))
            if not length_known:
                await wire.raw(b"\r\n")

    registry.hook("/manifests/", huge)
    with pytest.raises(ContentTooLarge, match="more than the limit of 4194304"):
        await resolve(client_for(), f"{registry.host}/app")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b'"manifest"',
        b"{",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"schemaVersion": 2, "config": 7}',
        b'{"schemaVersion": 2, "manifests": {"a": 1}}',
        b'{"schemaVersion": 2, "config": {"mediaType": "a", "digest": "sha256:../../etc", "size": 1}}',
        b'{"schemaVersion": 2}',
        b'{"schemaVersion": 2, "manifests": [], "config": {}, "layers": []}',
    ],
)
async def test_json_of_the_wrong_shape(serve: Any, client_for: Any, text: bytes) -> None:
    registry = await serve()
    registry.add_manifest(text, "latest")
    with pytest.raises(InvalidDocument, match=f"{registry.host}/app:latest"):
        await resolve(client_for(), f"{registry.host}/app")


async def test_schema_1_is_refused_by_name(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_manifest(
        {"schemaVersion": 1, "fsLayers": []}, "latest", media_type=MediaType.DOCKER_SCHEMA1_SIGNED
    )
    with pytest.raises(UnsupportedDocument, match="schema 1"):
        await resolve(client_for(), f"{registry.host}/app")


async def test_manifest_that_trickles_is_given_up(serve: Any, client_for: Any) -> None:
    registry = await serve()

    async def trickle(seen: Any, wire: Any) -> None:
        await wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await wire.raw(b"{")
            await asyncio.sleep(0.05)

    registry.hook("/manifests/", trickle)
    client = client_for(attempts=1, stall_seconds=0.2, min_bytes_per_second=1000)
    with pytest.raises(RegistryUnavailable, match="stalled"):
        async with asyncio.timeout(60):
            await resolve(client, f"{registry.host}/app")


async def test_manifest_may_come_slowly_and_late(serve: Any, client_for: Any) -> None:
    """As long as bytes come, and while other downloads have all connections that the host may have."""
    registry = await serve()
    digest = registry.add_image(b"layer")
    media_type, raw = registry.manifests[digest]

    async def drip(seen: Any, wire: Any) -> None:
        await wire.raw(f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n".encode())
        await wire.raw(f"Content-Length: {len(raw)}\r\n\r\n".encode())
        for start in range(0, len(raw), len(raw) // 10):
            await asyncio.sleep(0.35)
            await wire.raw(raw[start : start + len(raw) // 10])

    registry.hook("/manifests/", drip)
    client = client_for(host_seconds=3.0, connections_per_host=1, min_bytes_per_second=1)
    found = await asyncio.gather(*(resolve(client, f"{registry.host}/app") for _ in range(2)))
    assert [one.descriptor.digest for one in found] == [digest] * 2
    assert len(registry.seen) == 2


@pytest.mark.parametrize("limit", ["host_seconds", "response_seconds"])
async def test_silent_host_is_passed_over(serve: Any, client_for: Any, hosts_toml: Any, limit: str) -> None:
    registry, mirror = await serve(), await serve()
    registry.add_image(b"layer")
    mirror.deaf_to = "GET"
    hosts_toml(registry.host, f'server = "{registry.url}"\n[host."{mirror.url}"]\n')
    found = await resolve(client_for(**{limit: 1.0}), f"{registry.host}/app")
    assert found.host == registry.host


async def test_head_that_never_ends_is_given_up(serve: Any, client_for: Any) -> None:
    registry = await serve()

    async def endless(seen: Any, wire: Any) -> None:
        await wire.raw(b"HTTP/1.1 200 OK\r\n")
        while True:
            await wire.raw(b"X-Padding: " + b"a" * 4000 + b"\r\n")

    registry.hook("/manifests/", endless)
    with pytest.raises(UnexpectedResponse, match="no HTTP response"):
        await resolve(client_for(), f"{registry.host}/app")


@pytest.mark.parametrize("answer", [b"\x00\x01\x02\x03\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])
async def test_answers_that_are_no_http(serve: Any, client_for: Any, answer: bytes) -> None:
    registry = await serve()

    async def garbage(seen: Any, wire: Any) -> None:
        await wire.raw(answer)
        wire.writer.close()

    registry.hook("/manifests/", garbage)
    with pytest.raises(UnexpectedResponse):
        await resolve(client_for(), f"{registry.host}/app")


async def test_redirect_loop_ends(serve: Any, client_for: Any) -> None:
    registry = await serve()

    async def loop(seen: Any, wire: Any) -> None:
        await wire.reply(307, Location=seen.target)

    registry.hook("/manifests/", loop)
    with pytest.raises(UnexpectedResponse, match="more than 10 redirects"):
        await resolve(client_for(), f"{registry.host}/app")
    assert len(registry.seen) == 11


@pytest.mark.parametrize(
    "location", ["ftp://example.com/x", "file:///etc/passwd", "http://", "//:0/", "//a..b/", "https://.a/"]
)
async def test_redirects_to_what_is_no_http(serve: Any, client_for: Any, location: str) -> None:
    registry = await serve()

    async def away(seen: Any, wire: Any) -> None:
        await wire.reply(302, Location=location)

    registry.hook("/manifests/", away)
    with pytest.raises((UnexpectedResponse, RegistryUnavailable)):
        await resolve(client_for(), f"{registry.host}/app")


async def test_server_errors_are_retried_at_the_last_host(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    answers = [500, 503]

    async def fail(seen: Any, wire: Any) -> bool | None:
        if not answers:
            return False
        await wire.reply(answers.pop())
        return None

    registry.hook("/manifests/", fail)
    found = await resolve(client_for(), f"{registry.host}/app")
    assert found.descriptor.digest == digest
    assert len(registry.seen) == 3


async def test_retry_after_is_heeded(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    answers = [429]

    async def throttle(seen: Any, wire: Any) -> bool | None:
        if not answers:
            return False
        await wire.reply(answers.pop(), Retry_After="1")
        return None

    registry.hook("/manifests/", throttle)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await resolve(client_for(), f"{registry.host}/app")
    assert 1.0 <= loop.time() - started < 20.0


async def test_retry_after_beyond_patience_ends_at_once(serve: Any, client_for: Any) -> None:
    registry = await serve()

    async def throttle(seen: Any, wire: Any) -> None:
        await wire.reply(429, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', Retry_After="3600")

    registry.hook("/manifests/", throttle)
    with pytest.raises(RegistryUnavailable, match="429 Too Many Requests: toomanyrequests$"):
        async with asyncio.timeout(20):
            await resolve(client_for(), f"{registry.host}/app")


async def test_unreachable_registry(client_for: Any) -> None:
    with pytest.raises(RegistryUnavailable) as caught:
        await resolve(client_for(attempts=1), "127.0.0.1:1/app")
    assert str(caught.value).startswith("RegistryUnavailable: 127.0.0.1:1/app:latest: ")
    assert caught.value.code is Code.UNAVAILABLE


async def test_forbidden_says_pull_access_denied(serve: Any, client_for: Any) -> None:
    registry = await serve()

    async def forbid(seen: Any, wire: Any) -> None:
        await wire.reply(403, b'{"errors":[{"code":"DENIED","message":"not on this network"}]}')

    registry.hook("/manifests/", forbid)
    with pytest.raises(AccessDenied, match="^pull access denied.*denied: not on this network"):
        await resolve(client_for(), f"{registry.host}/app")


async def test_mirrors_are_asked_in_order_with_namespace(
    serve: Any, client_for: Any, hosts_toml: Any
) -> None:
    empty, full, upstream = await serve(), await serve(), await serve()
    digest = full.add_image(b"layer")
    hosts_toml(
        "registry.example",
        f"""
        server = "{upstream.url}"
        [host."{empty.url}"]
        [host."{full.url}/cache"]
          capabilities = ["pull", "resolve"]
          [host."{full.url}/cache".header]
            x-token = ["one"]
        """,
    )
    found = await resolve(client_for(), "registry.example/team/app:latest")
    assert (found.descriptor.digest, found.host) == (digest, full.host)
    assert empty.seen[0].target == "/v2/team/app/manifests/latest?ns=registry.example"
    assert full.seen[0].target == "/cache/v2/team/app/manifests/latest?ns=registry.example"
    assert full.seen[0].headers["x-token"] == "one"
    assert upstream.seen == []


async def test_mirror_without_resolve_is_asked_for_digests_only(
    serve: Any, client_for: Any, hosts_toml: Any
) -> None:
    mirror, upstream = await serve(), await serve()
    digest = upstream.add_image(b"layer")
    mirror.manifests.update(upstream.manifests)
    text = f'server = "{upstream.url}"\n[host."{mirror.url}"]\ncapabilities = ["pull"]\n'
    hosts_toml("registry.example", text)
    client = client_for()
    assert (await resolve(client, "registry.example/app")).host == upstream.host
    assert (await resolve(client, f"registry.example/app@{digest}")).host == mirror.host


async def test_override_path_is_taken_as_it_is(serve: Any, client_for: Any, hosts_toml: Any) -> None:
    mirror = await serve()
    mirror.add_image(b"layer")
    hosts_toml("registry.example", f'server = "{mirror.url}/v2/proxy/hub"\noverride_path = true\n')
    await resolve(client_for(), "registry.example/app")
    assert mirror.seen[0].path == "/v2/proxy/hub/app/manifests/latest"


async def test_changed_configuration_is_seen_by_the_next_pull(
    serve: Any, client_for: Any, hosts_toml: Any
) -> None:
    one, other = await serve(), await serve()
    one.add_image(b"layer")
    other.add_image(b"layer")
    client = client_for()
    for registry in (one, other):
        hosts_toml("registry.example", f'server = "{registry.url}"\n')
        assert (await resolve(client, "registry.example/app")).host == registry.host


async def test_failing_mirror_is_passed_over_at_once(serve: Any, client_for: Any, hosts_toml: Any) -> None:
    mirror, upstream = await serve(), await serve()
    upstream.add_image(b"layer")

    async def fail(seen: Any, wire: Any) -> None:
        await wire.reply(503)

    mirror.hook("/", fail)
    hosts_toml("registry.example", f'server = "{upstream.url}"\n[host."{mirror.url}"]\n')
    assert (await resolve(client_for(), "registry.example/app")).host == upstream.host
    assert len(mirror.seen) == 1


@pytest.mark.parametrize("fallback", [True, False])
async def test_upstream_is_asked_unless_the_mirror_is_the_server(
    serve: Any, client_for: Any, hosts_toml: Any, fallback: bool
) -> None:
    mirror, upstream = await serve(), await serve()
    upstream.add_image(b"layer")
    server = "" if fallback else f'server = "{mirror.url}"\n'
    hosts_toml(upstream.host, f'{server}[host."{mirror.url}"]\ncapabilities = ["pull", "resolve"]\n')
    if fallback:
        assert (await resolve(client_for(), f"{upstream.host}/app")).host == upstream.host
    else:
        with pytest.raises(ContentNotFound):
            await resolve(client_for(), f"{upstream.host}/app")
        assert upstream.seen == []
    assert len(mirror.seen) == 1


async def test_silent_mirror_costs_its_own_budget_and_then_a_penalty(
    serve: Any, client_for: Any, hosts_toml: Any
) -> None:
    mirror, upstream = await serve(), await serve()
    upstream.add_image(b"layer")

    async def hang(seen: Any, wire: Any) -> None:
        await asyncio.sleep(60)

    mirror.hook("/", hang)
    hosts_toml("registry.example", f'server = "{upstream.url}"\n[host."{mirror.url}"]\n')
    client = client_for(response_seconds=3.0)
    assert (await resolve(client, "registry.example/app")).host == upstream.host
    assert (await resolve(client, "registry.example/app")).host == upstream.host
    assert len(mirror.seen) == 1


async def test_mirror_under_a_penalty_takes_neither_the_time_nor_the_word_of_the_registry(
    serve: Any, client_for: Any, hosts_toml: Any
) -> None:
    upstream = await serve()
    hosts_toml("registry.example", f'server = "{upstream.url}"\n[host."http://127.0.0.1:1"]\n')
    client = client_for(attempts=100)
    for _ in range(2):
        with pytest.raises(ContentNotFound, match="manifest_unknown.*tried too: 127.0.0.1:1: connection"):
            async with asyncio.timeout(60):
                await resolve(client, "registry.example/app")
    answers = [503, 503]

    async def fail(seen: Any, wire: Any) -> bool | None:
        if not answers:
            return False
        await wire.reply(answers.pop())
        return None

    upstream.hook("/manifests/", fail)
    digest = upstream.add_image(b"layer")
    assert (await resolve(client, "registry.example/app")).descriptor.digest == digest


async def test_mirror_under_a_penalty_is_waited_for_where_the_registry_cannot_be_reached(
    hosts_toml: Any, tmp_path: Path
) -> None:
    hosts_toml("registry.example", '[host."https://mirror.example"]\n')
    mirror, registry = HostsConfig().hosts("registry.example", [str(tmp_path / "certs")])
    health = HostHealth()
    health.penalise(mirror, 600.0)
    walk = Walk([mirror, registry], RegistrySettings(), health, "it")
    assert await walk.next() is registry
    walk.failed(AttemptFailed(Failure.UNREACHABLE, registry.name, "no route"))
    assert await walk.next() is mirror
    walk.failed(AttemptFailed(Failure.OVERLOADED, mirror.name, "starting"))
    assert await walk.next() is mirror
    walk.failed(AttemptFailed(Failure.NOT_FOUND, mirror.name, "unknown"))
    with pytest.raises(
        RegistryUnavailable, match=f"it: {registry.name}: no route .tried too: {mirror.name}"
    ):
        await walk.next()


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {"Content_Type": "text/html"}, b"<html>please log in</html>"),
        (200, {"Content_Type": MediaType.OCI_MANIFEST}, b'{"schemaVersion": 2'),
        (200, {"Content_Type": MediaType.OCI_MANIFEST}, b'{"schemaVersion": 2, "manifests": []}'),
        (200, {"Content_Type": MediaType.DOCKER_SCHEMA1}, b'{"schemaVersion": 1, "fsLayers": []}'),
        (200, {"Docker_Content_Digest": Digest.of(b"other")}, b'{"schemaVersion": 2, "manifests": []}'),
        (204, {}, b""),
        (418, {}, b"no"),
    ],
    ids=["html", "json", "contradiction", "schema1", "digest", "empty", "status"],
)
async def test_mirror_that_serves_no_manifest_is_passed_over(
    serve: Any, client_for: Any, hosts_toml: Any, status: int, headers: dict[str, str], body: bytes
) -> None:
    mirror, upstream = await serve(), await serve()
    digest = upstream.add_image(b"layer")

    async def wrong(seen: Any, wire: Any) -> None:
        await wire.reply(status, body, **headers)

    mirror.hook("/manifests/", wrong)
    hosts_toml("registry.example", f'server = "{upstream.url}"\n[host."{mirror.url}"]\n')
    for reference in ("registry.example/app", f"registry.example/app@{digest}"):
        found = await resolve(client_for(), reference)
        assert (found.host, found.descriptor.digest) == (upstream.host, digest)


async def test_malformed_manifests_of_all_hosts_are_told(
    serve: Any, client_for: Any, hosts_toml: Any
) -> None:
    mirror, upstream = await serve(), await serve()
    mirror.add_manifest(b"<html>", "latest")
    upstream.add_manifest(b"[]", "latest")
    hosts_toml("registry.example", f'server = "{upstream.url}"\n[host."{mirror.url}"]\n')
    with pytest.raises(InvalidDocument) as caught:
        await resolve(client_for(), "registry.example/app")
    text = str(caught.value)
    assert text.startswith(f"registry.example/app:latest: {upstream.host}: manifest: Expected `object`")
    assert f"tried too: {mirror.host}: manifest: JSON is malformed" in text


async def test_error_names_every_host(serve: Any, client_for: Any, hosts_toml: Any) -> None:
    upstream = await serve()
    hosts_toml("registry.example", f'server = "{upstream.url}"\n[host."http://127.0.0.1:1"]\n')
    with pytest.raises(ContentNotFound) as caught:
        await resolve(client_for(), "registry.example/app")
    assert upstream.host in str(caught.value)
    assert "tried too: 127.0.0.1:1: connection refused" in str(caught.value)


def index_of(registry: Any, *platforms: dict[str, str] | None, name: str = "latest") -> Digest:
    entries = []
    for number, platform in enumerate(platforms):
        architecture = (platform or {}).get("architecture", "amd64")
        digest = registry.add_image(str(number).encode(), tag="", architecture=architecture)
        size = len(registry.manifests[digest][1])
        entry: dict[str, Any] = {"mediaType": MediaType.OCI_MANIFEST, "digest": digest, "size": size}
        entries.append(entry | ({"platform": platform} if platform else {}))
    index = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": entries}
    digest = registry.add_manifest(index, name, media_type=MediaType.OCI_INDEX)
    return Digest(digest)


async def test_index_gives_the_manifest_of_the_platform(serve: Any, client_for: Any) -> None:
    registry = await serve()
    top = index_of(
        registry,
        {"os": "linux", "architecture": "arm64"},
        {"os": "linux", "architecture": "amd64"},
        {"os": "unknown", "architecture": "unknown"},
    )
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        chosen = await repository.select(await repository.resolve(), AMD64)
        config = json.loads(await repository.fetch_blob(chosen.document.config))
    assert chosen.top.descriptor.digest == top
    assert [one.descriptor.digest for one in chosen.chain] == [top]
    assert config["architecture"] == "amd64"


async def test_index_without_the_platform(serve: Any, client_for: Any) -> None:
    registry = await serve()
    index_of(registry, {"os": "linux", "architecture": "arm64"}, {"os": "windows", "architecture": "amd64"})
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        with pytest.raises(NoMatchingPlatform, match="linux/amd64.*linux/arm64, windows/amd64"):
            await repository.select(await repository.resolve(), AMD64)


async def test_entries_without_platform_are_known_by_their_config(serve: Any, client_for: Any) -> None:
    registry = await serve()
    index_of(registry, {"os": "linux", "architecture": "s390x"}, None)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        chosen = await repository.select(await repository.resolve(), AMD64)
    assert chosen.document.is_image


async def test_indexes_nested_too_deep(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer", tag="")
    for depth in range(8):
        media_type = MediaType.OCI_INDEX if depth else MediaType.OCI_MANIFEST
        size = len(registry.manifests[digest][1])
        platform = {"os": "linux", "architecture": "amd64"}
        entry = {"mediaType": media_type, "digest": digest, "size": size, "platform": platform}
        document = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": [entry]}
        digest = registry.add_manifest(document, "latest", media_type=MediaType.OCI_INDEX)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        with pytest.raises(NoMatchingPlatform, match="nested"):
            await repository.select(await repository.resolve(), AMD64)


async def test_size_in_a_descriptor_must_be_right(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    raw = registry.manifests[digest][1]
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        with pytest.raises(ContentMismatch, match="its descriptor says"):
            await repository.fetch_manifest(Descriptor(MediaType.OCI_MANIFEST, digest, len(raw) + 1))
        config = Descriptor(MediaType.OCI_CONFIG, registry.add_blob(b"{}"), 3)
        with pytest.raises(ContentMismatch, match="blob has 2 bytes, not 3"):
            await repository.fetch_blob(config)


async def test_config_above_the_limit_is_not_even_asked_for(serve: Any, client_for: Any) -> None:
    registry = await serve()
    descriptor = Descriptor(MediaType.OCI_CONFIG, Digest.of(b"x"), 10 << 20)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        with pytest.raises(ContentTooLarge):
            await repository.fetch_blob(descriptor)
    assert registry.seen == []


@pytest.mark.parametrize("api", [True, False, None], ids=["api", "tag", "capabilities"])
async def test_referrers_by_api_or_by_tag(
    serve: Any, client_for: Any, hosts_toml: Any, api: bool | None
) -> None:
    registry = await serve()
    if api is None:
        hosts_toml(registry.host, f'server = "{registry.url}"\ncapabilities = ["pull", "resolve"]\n')
    subject = registry.add_image(b"layer")
    signature = {"mediaType": MediaType.OCI_MANIFEST, "digest": Digest.of(b"s"), "size": 1}
    listed = [signature | {"artifactType": "sig"}, signature | {"artifactType": "sbom"}]
    index = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": listed}

    async def referrers(seen: Any, wire: Any) -> None:
        await wire.reply(200, json.dumps(index).encode(), Content_Type=MediaType.OCI_INDEX)

    if api:
        registry.hook("/referrers/", referrers)
    else:
        registry.add_manifest(index, subject.replace(":", "-"), media_type=MediaType.OCI_INDEX)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        found = await repository.referrers(subject, "sig")
    assert [one.artifact_type for one in found] == ["sig"]
    assert any("/referrers/" in one for one in registry.paths()) == (api is not None)


async def test_referrers_without_end_are_cut(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    pages = 0

    async def page(seen: Any, wire: Any) -> None:
        nonlocal pages
        pages += 1
        entry = {"mediaType": MediaType.OCI_MANIFEST, "digest": digest, "size": 1}
        body = json.dumps(
            {"schemaVersion": 2, "manifests": [entry] * (1500 if "many" in seen.target else 1)}
        )
        link = f'<{seen.path}?n={pages}&{"many" if "many" in seen.target else "few"}>; rel="next"'
        await wire.reply(200, body.encode(), Link=link, Content_Type=MediaType.OCI_INDEX)

    registry.hook("/referrers/", page)
    reference = Reference.parse(f"{registry.host}/app")
    async with client_for().repository(reference) as repository:
        assert len(await repository.referrers(Digest(digest))) == 50
    reference = Reference.parse(f"{registry.host}/many")
    async with client_for().repository(reference) as repository:
        assert len(await repository.referrers(Digest(digest))) == 4500


async def test_indexes_that_name_each_other(serve: Any, client_for: Any) -> None:
    """One of them cannot have the digest that the other one says, so the circle does not close."""
    registry = await serve()

    def index(digest: str) -> bytes:
        entry = {"mediaType": MediaType.OCI_INDEX, "digest": digest, "size": 300}
        return json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode().ljust(300)

    one = Digest.of(b"one")
    other = registry.add_manifest(index(one), media_type=MediaType.OCI_INDEX)
    registry.manifests[one] = registry.manifests["latest"] = (MediaType.OCI_INDEX, index(other))
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        with pytest.raises(ContentMismatch, match=f"not {one}"):
            await repository.select(await repository.resolve(), AMD64)


@pytest.mark.parametrize("status", [400, 404, 405, 406, 501])
async def test_no_referrers(status: int, serve: Any, client_for: Any) -> None:
    registry = await serve()
    subject = registry.add_image(b"layer")

    async def unknown(seen: Any, wire: Any) -> None:
        await wire.reply(status, b"")

    registry.hook("/referrers/", unknown)
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        assert await repository.referrers(subject) == []


answers = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=200).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest + b"\r\n\r\n"),
    st.tuples(
        st.sampled_from([100, 200, 204, 206, 301, 304, 401, 404, 416, 429, 500, 999]),
        st.lists(
            st.tuples(
                st.sampled_from(
                    [
                        "Content-Length",
                        "Transfer-Encoding",
                        "Location",
                        "Retry-After",
                        "WWW-Authenticate",
                        "Docker-Content-Digest",
                        "Connection",
                    ]
                ),
                st.sampled_from(
                    ["0", "5", "-1", "chunked", "", "close", "Basic", "/", "http://[", "9" * 30]
                ),
            ),
            max_size=3,
        ),
        st.binary(max_size=50),
    ).map(
        lambda parts: (
            b"HTTP/1.1 %d X\r\n" % parts[0]
            + b"".join(f"{name}: {value}\r\n".encode() for name, value in parts[1])
            + b"\r\n"
            + parts[2]
        )
    ),
)


async def test_any_answer_ends_in_an_error_of_ours(serve: Any, client_for: Any) -> None:
    registry = await serve()
    client = client_for(attempts=1, response_seconds=0.3, stall_seconds=0.2)
    current = [b""]

    async def answer(seen: Any, wire: Any) -> None:
        await wire.raw(current[0])
        wire.writer.close()

    registry.hook("/v2/", answer)
    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(answers)
    def every(data: bytes) -> None:
        current[0] = data
        attempt = asyncio.run_coroutine_threadsafe(resolve(client, f"{registry.host}/app"), loop)
        with pytest.raises(TriptychError):
            attempt.result(timeout=10)

    await asyncio.to_thread(every)


async def test_connections_to_a_host_are_limited(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    now = [0]
    most = [0]

    async def slow(seen: Any, wire: Any) -> bool:
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.05)
        now[0] -= 1
        return False

    registry.hook("/v2/", slow)
    client = client_for(connections_per_host=2)
    await asyncio.gather(*(resolve(client, f"{registry.host}/app") for _ in range(8)))
    assert most == [2]
