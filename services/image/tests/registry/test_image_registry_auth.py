"""Getting in, and keeping secrets where they belong."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from runtime.v1 import api_pb2
from triptych_errors import Code, TriptychError
from triptych_image.registry import (
    AccessDenied,
    Credentials,
    InvalidCredentials,
    RegistryUnavailable,
    UnexpectedResponse,
)
from triptych_image.registry.challenge import Challenge, parse_challenges
from triptych_oci import Descriptor, MediaType, Reference

SECRET = "pa:ss wörd"


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


async def resolve(client: Any, name: str, credentials: Credentials | None = None) -> Any:
    async with client.repository(Reference.parse(name), credentials) as repository:
        return await repository.resolve()


def demand(registry: Any, challenge: str, accept: Callable[[str], bool]) -> None:
    """Let everything but the token server want an Authorization that is accepted."""

    async def check(seen: Any, wire: Any) -> bool | None:
        if accept(seen.headers.get("authorization", "")):
            return False
        await wire.reply(
            401,
            b'{"errors":[{"code":"UNAUTHORIZED"}]}',
            WWW_Authenticate=challenge,
            head=seen.method == "HEAD",
        )
        return None

    registry.hook("/v2/", check)


def token_server(registry: Any, *answers: Any) -> list[Any]:
    """Answer token requests in turn, the last answer for ever; returns them as they come."""
    came: list[Any] = []
    left = list(answers)

    async def answer(seen: Any, wire: Any) -> None:
        came.append(seen)
        body = left.pop(0) if len(left) > 1 else left[0]
        status, content = body if isinstance(body, tuple) else (200, body)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        await wire.reply(status, raw)

    registry.hook("/token", answer)
    return came


def bearer(registry: Any, at: Any = None) -> str:
    return f'Bearer realm="{(at or registry).url}/token",service="reg",scope="repository:app:pull"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull,push"})],
        ),
        ('Basic realm="x", Bearer realm=y', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ('Bearer realm = "a\\"b" , error="e"', [("bearer", {"realm": 'a"b', "error": "e"})]),
        ("Negotiate, Basic", [("negotiate", {}), ("basic", {})]),
        ("", []),
        ("=,,==", []),
        ('realm="x"', []),
        ('Bearer realm="unterminated', [("bearer", {}), ("realm", {})]),
    ],
)
def test_challenges(header: str, expected: list[Any]) -> None:
    assert parse_challenges([header]) == [Challenge(scheme, found) for scheme, found in expected]


def test_endless_challenge_is_cut() -> None:
    assert len(parse_challenges(["a, " * 1_000_000])) < 5000


async def test_basic(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, 'Basic realm="x"', lambda sent: sent == basic("me", SECRET))
    await resolve(client_for(), f"{registry.host}/app", Credentials("me", SECRET))


async def test_wrong_basic_is_refused_without_a_loop(serve: Any, client_for: Any) -> None:
    registry = await serve()
    demand(registry, 'Basic realm="x"', lambda sent: False)
    with pytest.raises(AccessDenied) as caught:
        await resolve(client_for(), f"{registry.host}/app", Credentials("me", SECRET))
    assert len(registry.seen) == 2
    assert SECRET not in str(caught.value)
    assert caught.value.code is Code.UNKNOWN


async def test_basic_without_credentials(serve: Any, client_for: Any) -> None:
    registry = await serve()
    demand(registry, 'Basic realm="x"', lambda sent: False)
    with pytest.raises(AccessDenied, match="no basic auth credentials"):
        await resolve(client_for(), f"{registry.host}/app")


async def test_anonymous_token(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok-1")
    asked = token_server(registry, {"token": "tok-1", "expires_in": 300})
    client = client_for()
    async with client.repository(Reference.parse(f"{registry.host}/app")) as repository:
        top = await repository.resolve()
        await repository.fetch_blob(top.document.config)
    assert top.descriptor.digest == digest
    assert [one.query for one in asked] == [{"service": "reg", "scope": "repository:app:pull"}]
    assert "authorization" not in asked[0].headers


async def test_challenge_is_remembered_for_the_next_pull(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    token_server(registry, {"access_token": "tok"})
    client = client_for()
    await resolve(client, f"{registry.host}/app")
    registry.seen.clear()
    await resolve(client, f"{registry.host}/app")
    assert registry.paths() == ["/token", "/v2/app/manifests/latest"]


@pytest.mark.parametrize("now", ["elsewhere", "basic", "open"])
async def test_challenge_that_does_not_hold_any_more_is_asked_for_again(
    serve: Any, client_for: Any, now: str
) -> None:
    registry, old, new = await serve(), await serve(), await serve()
    registry.add_image(b"layer")
    token_server(old, {"token": "tok"})
    token_server(new, {"token": "tok"})
    demand(registry, bearer(registry, old), lambda sent: sent == "Bearer tok")
    client = client_for()
    credentials = Credentials("me", SECRET)
    await resolve(client, f"{registry.host}/app", credentials)
    old.hooks.clear()
    registry.hooks.clear()
    if now == "elsewhere":
        demand(registry, bearer(registry, new), lambda sent: sent == "Bearer tok")
    elif now == "basic":
        demand(registry, 'Basic realm="x"', lambda sent: sent == basic("me", SECRET))
    await asyncio.gather(*(resolve(client, f"{registry.host}/app", credentials) for _ in range(2)))
    old.seen.clear()
    await resolve(client, f"{registry.host}/app", credentials)
    assert old.seen == []


async def test_remembered_challenge_shows_a_wrong_password_once(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    asked = token_server(registry, {"token": "tok"}, (401, {}), {"token": "tok"})
    client = client_for()
    await resolve(client, f"{registry.host}/app")
    with pytest.raises(AccessDenied):
        await resolve(client, f"{registry.host}/app", Credentials("me", SECRET))
    assert len(asked) == 2
    registry.seen.clear()
    await resolve(client, f"{registry.host}/app")
    assert registry.paths()[0] == "/v2/app/manifests/latest"


async def test_bearer_goes_before_basic_in_any_order(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, f'Basic realm="x", {bearer(registry)}', lambda sent: sent == "Bearer tok")
    token_server(registry, {"token": "tok"})
    await resolve(client_for(), f"{registry.host}/app")


async def test_password_buys_a_token(serve: Any, client_for: Any) -> None:
    registry, tokens = await serve(), await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry, tokens), lambda sent: sent == "Bearer tok")
    asked = token_server(tokens, {"token": "tok"})
    await resolve(client_for(), f"{registry.host}/app", Credentials("me", SECRET))
    assert asked[0].headers["authorization"] == basic("me", SECRET)
    assert asked[0].query["account"] == "me"
    assert all("Basic" not in one.headers.get("authorization", "") for one in registry.seen)


async def test_identity_token_is_exchanged_by_post(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    asked = token_server(registry, {"access_token": "tok"})
    await resolve(client_for(), f"{registry.host}/app", Credentials(identity_token="refresh"))
    form = {key: values[0] for key, values in parse_qs(asked[0].body.decode()).items()}
    assert asked[0].method == "POST"
    assert form["grant_type"] == "refresh_token"
    assert form["refresh_token"] == "refresh"
    assert form["scope"] == "repository:app:pull"


async def test_identity_token_over_a_connection_that_is_closed_meanwhile(
    serve: Any, client_for: Any
) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    token_server(registry, {"access_token": "tok"})

    async def close_kept(seen: Any, wire: Any) -> bool:
        if len(registry.seen) > 3:
            registry.hooks.remove(("/token", close_kept))
            raise ConnectionAbortedError
        return False

    registry.hook("/token", close_kept)
    client = client_for()
    for _ in range(2):
        await resolve(client, f"{registry.host}/app", Credentials(identity_token="refresh"))
    assert ("/token", close_kept) not in registry.hooks


async def test_registry_token_is_sent_as_it_is(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer given")
    await resolve(client_for(), f"{registry.host}/app", Credentials(registry_token="given"))
    assert "/token" not in registry.paths()


async def test_refused_registry_token(serve: Any, client_for: Any) -> None:
    registry = await serve()
    demand(registry, bearer(registry), lambda sent: False)
    with pytest.raises(AccessDenied):
        await resolve(client_for(), f"{registry.host}/app", Credentials(registry_token="given"))
    assert len(registry.seen) == 2


async def test_token_that_ran_out_is_replaced(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    valid = ["tok-1"]
    demand(registry, bearer(registry), lambda sent: sent == f"Bearer {valid[0]}")
    token_server(registry, {"token": "tok-1"}, {"token": "tok-2"})
    async with client_for().repository(Reference.parse(f"{registry.host}/app")) as repository:
        top = await repository.resolve()
        valid[0] = "tok-2"
        await repository.fetch_blob(top.document.config)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"no json",
        {"token": 7},
        {"token": ""},
        {"expires_in": 60},
        {"token": "a\r\nX-Evil: 1"},
        {"token": "tök"},
        b'{"token": "' + b"a" * 300_000 + b'"}',
        b"[" * 10_000,
    ],
)
async def test_token_answers_of_the_wrong_shape(serve: Any, client_for: Any, answer: Any) -> None:
    registry = await serve()
    demand(registry, bearer(registry), lambda sent: False)
    token_server(registry, answer)
    with pytest.raises(TriptychError, match=registry.host) as caught:
        await resolve(client_for(), f"{registry.host}/app")
    assert "X-Evil" not in str(caught.value)


async def test_token_server_refuses(serve: Any, client_for: Any) -> None:
    registry = await serve()
    demand(registry, bearer(registry), lambda sent: False)
    token_server(registry, (401, {"details": "incorrect username or password"}))
    with pytest.raises(AccessDenied, match="incorrect username or password") as caught:
        await resolve(client_for(), f"{registry.host}/app", Credentials("me", SECRET))
    assert SECRET not in str(caught.value)


async def test_token_server_that_fails_is_asked_again(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    asked = token_server(registry, (503, {}), {"token": "tok"})
    await resolve(client_for(), f"{registry.host}/app")
    assert len(asked) == 2


async def test_token_answer_that_stalls_is_given_up_and_asked_for_again(serve: Any, client_for: Any) -> None:
    registry = await serve()
    digest = registry.add_blob(b"content")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    asked = token_server(registry, {"token": "tok"})

    async def stall(seen: Any, wire: Any) -> bool | None:
        registry.hooks.remove(("/token", stall))
        await wire.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"tok')
        await wire.reader.read()
        return None

    registry.hook("/token", stall)
    client = client_for(response_seconds=1.0)
    blob = Descriptor(MediaType.OCI_LAYER, digest, 7)
    async with asyncio.timeout(60), client.repository(Reference.parse(f"{registry.host}/app")) as repository:
        assert b"".join([chunk async for chunk in repository.open_blob(blob)]) == b"content"
    assert len(asked) == 1


async def test_token_server_that_is_away(serve: Any, client_for: Any) -> None:
    registry = await serve()
    challenge = 'Bearer realm="http://127.0.0.1:1/token",service="s"'
    demand(registry, challenge, lambda sent: False)
    with pytest.raises(RegistryUnavailable, match="connection refused"):
        await resolve(client_for(), f"{registry.host}/app")


@pytest.mark.parametrize("realm", ["", "ftp://x/y", "//", "http://", "javascript:1"])
async def test_realms_that_are_no_url(serve: Any, client_for: Any, realm: str) -> None:
    registry = await serve()
    demand(registry, f'Bearer realm="{realm}",service="s"', lambda sent: False)
    with pytest.raises((UnexpectedResponse, AccessDenied)):
        await resolve(client_for(), f"{registry.host}/app", Credentials("me", SECRET))


async def test_credentials_stay_within_tls(
    serve: Any, client_for: Any, hosts_toml: Any, certificates: Any
) -> None:
    registry = await serve(tls=certificates.server_context())
    hosts_toml(registry.host, f'server = "{registry.url}"\nca = "{certificates.ca}"\n')
    realm = 'Bearer realm="http://tokens.example/token",service="s"'
    demand(registry, realm, lambda sent: False)
    with pytest.raises(AccessDenied, match="without TLS"):
        await resolve(client_for(), f"{registry.host}/app", Credentials("me", SECRET))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_to_another_host_brings_no_secrets(
    serve: Any, client_for: Any, hosts_toml: Any, status: int
) -> None:
    registry, storage = await serve(), await serve()
    data = b"blob content"
    digest = storage.add_blob(data)
    demand(registry, 'Basic realm="x"', lambda sent: sent == basic("me", SECRET))

    async def redirect(seen: Any, wire: Any) -> bool | None:
        if "authorization" not in seen.headers:
            return False
        await wire.reply(status, Location=f"{storage.url}/v2/storage/blobs/{digest}?X-Amz-Signature=abc")
        return None

    registry.hook("/blobs/", redirect)
    hosts_toml(registry.host, f'server = "{registry.url}"\n[header]\nX-Api-Key = "key"\nCookie = "c=1"\n')
    async with client_for().repository(
        Reference.parse(f"{registry.host}/app"), Credentials("me", SECRET)
    ) as repository:
        blob = Descriptor(MediaType.OCI_CONFIG, digest, len(data))
        assert await repository.fetch_blob(blob) == data
    assert registry.seen[-1].headers["x-api-key"] == "key"
    for secret in ("authorization", "x-api-key", "cookie"):
        assert secret not in storage.seen[0].headers


async def test_redirect_within_the_host_keeps_authorization(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer", tag="moved")
    demand(registry, 'Basic realm="x"', lambda sent: sent == basic("me", SECRET))

    async def redirect(seen: Any, wire: Any) -> bool | None:
        if "authorization" not in seen.headers:
            return False
        await wire.reply(307, Location="/v2/app/manifests/moved")
        return None

    registry.hook("/manifests/latest", redirect)
    await resolve(client_for(), f"{registry.host}/app", Credentials("me", SECRET))


async def test_challenge_of_a_redirect_target_gets_nothing(serve: Any, client_for: Any) -> None:
    registry, thief = await serve(), await serve()
    demand(thief, 'Basic realm="x"', lambda sent: bool(sent))

    async def redirect(seen: Any, wire: Any) -> None:
        await wire.reply(307, Location=f"{thief.url}/v2/app/manifests/latest")

    registry.hook("/manifests/", redirect)
    with pytest.raises(AccessDenied):
        await resolve(client_for(), f"{registry.host}/app", Credentials("me", SECRET))
    assert all("authorization" not in one.headers for one in thief.seen)


async def test_mirror_does_not_get_the_registrys_credentials(
    serve: Any, client_for: Any, hosts_toml: Any
) -> None:
    mirror, upstream = await serve(), await serve()
    upstream.add_image(b"layer")
    demand(mirror, 'Basic realm="x"', lambda sent: False)
    demand(upstream, 'Basic realm="x"', lambda sent: sent == basic("me", SECRET))
    hosts_toml("registry.example", f'server = "{upstream.url}"\n[host."{mirror.url}"]\n')
    found = await resolve(client_for(), "registry.example/app", Credentials("me", SECRET))
    assert found.host == upstream.host
    assert all("authorization" not in one.headers for one in mirror.seen)


async def test_default_server_is_no_home_for_the_registrys_credentials(
    serve: Any, client_for: Any, hosts_toml: Any
) -> None:
    proxy = await serve()
    demand(proxy, 'Basic realm="x"', lambda sent: False)
    hosts_toml("_default", f'server = "{proxy.url}"\n')
    with pytest.raises(AccessDenied, match="no basic auth"):
        await resolve(client_for(), "registry.example/app", Credentials("me", SECRET))
    assert all("authorization" not in one.headers for one in proxy.seen)


@pytest.mark.parametrize(("server", "given"), [("elsewhere.example", False), ("", True)])
async def test_server_address_must_match(serve: Any, client_for: Any, server: str, given: bool) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, 'Basic realm="x"', lambda sent: bool(sent))
    for address in (server or f"https://{registry.host}/v1/",):
        credentials = Credentials("me", SECRET, server_address=address)
        if given:
            await resolve(client_for(), f"{registry.host}/app", credentials)
        else:
            with pytest.raises(AccessDenied):
                await resolve(client_for(), f"{registry.host}/app", credentials)


async def test_mirror_gets_credentials_that_name_it(serve: Any, client_for: Any, hosts_toml: Any) -> None:
    mirror = await serve()
    mirror.add_image(b"layer")
    demand(mirror, 'Basic realm="x"', lambda sent: sent == basic("me", SECRET))
    hosts_toml("registry.example", f'[host."{mirror.url}"]\n')
    credentials = Credentials("me", SECRET, server_address=mirror.host)
    assert (await resolve(client_for(), "registry.example/app", credentials)).host == mirror.host


def write_auth(tmp_path: Path, document: Any) -> None:
    (tmp_path / "auth.json").write_text(json.dumps(document))


def encoded(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("path", "user"), [("team/app", "exact"), ("team/other", "team"), ("alone", "host")]
)
async def test_auth_file_longest_match(
    serve: Any, client_for: Any, tmp_path: Path, path: str, user: str
) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, 'Basic realm="x"', lambda sent: sent == basic(user, "p"))
    auths = {
        f"http://{registry.host}/v2/": {"auth": encoded("host", "p")},
        f"{registry.host}/team": {"username": "team", "password": "p"},
        f"{registry.host}/team/app": {"auth": encoded("exact", "p")},
    }
    write_auth(tmp_path, {"auths": auths})
    await resolve(client_for(), f"{registry.host}/{path}")


async def test_null_in_an_auth_file_or_a_token_answer_is_nothing(
    serve: Any, client_for: Any, tmp_path: Path
) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    asked = token_server(registry, {"token": None, "access_token": "tok", "expires_in": None})
    secret = base64.b64encode(b"me:pw").decode()
    document = {
        "auths": {registry.host: {"auth": secret, "identitytoken": None, "username": None}, "other": None},
        "credHelpers": {registry.host: None},
        "credsStore": None,
    }
    (tmp_path / "auth.json").write_text(json.dumps(document))
    await resolve(client_for(), f"{registry.host}/app")
    assert asked[0].headers["authorization"] == basic("me", "pw")


async def test_auth_file_is_read_on_each_pull(serve: Any, client_for: Any, tmp_path: Path) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, 'Basic realm="x"', lambda sent: sent == basic("new", "p"))
    client = client_for()
    for user in ("old", "new"):
        write_auth(tmp_path, {"auths": {registry.host: {"auth": encoded(user, "p")}}})
        if user == "old":
            with pytest.raises(AccessDenied):
                await resolve(client, f"{registry.host}/app")
        else:
            await resolve(client, f"{registry.host}/app")


async def test_auth_file_serves_a_mirror(
    serve: Any, client_for: Any, hosts_toml: Any, tmp_path: Path
) -> None:
    mirror = await serve()
    mirror.add_image(b"layer")
    demand(mirror, 'Basic realm="x"', lambda sent: sent == basic("cache", "p"))
    hosts_toml("registry.example", f'[host."{mirror.url}"]\n')
    write_auth(tmp_path, {"auths": {mirror.host: {"auth": encoded("cache", "p")}}})
    assert (
        await resolve(client_for(), "registry.example/app", Credentials("me", SECRET))
    ).host == mirror.host


@pytest.mark.parametrize("text", ["", "{", "[]", '{"auths": 3}', '{"auths": {"x": {"auth": 5}}}'])
async def test_malformed_auth_file_is_logged_and_skipped(
    serve: Any, client_for: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    token_server(registry, {"token": "tok"})
    (tmp_path / "auth.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        await resolve(client_for(), f"{registry.host}/app")
    assert "auth file is malformed" in caplog.text


def install_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
async def test_credential_helper(
    serve: Any, client_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, 'Basic realm="x"', lambda sent: sent == basic(registry.host, "p"))
    script = 'read -r server; printf \'{"ServerURL":"x","Username":"%s","Secret":"p"}\' "$server"'
    install_helper(tmp_path, monkeypatch, script)
    write_auth(tmp_path, {key: {registry.host: "test"} if key == "credHelpers" else "test"})
    await resolve(client_for(), f"{registry.host}/app")


async def test_helper_that_gives_an_identity_token(
    serve: Any, client_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    asked = token_server(registry, {"access_token": "tok"})
    install_helper(tmp_path, monkeypatch, 'echo \'{"Username":"<token>","Secret":"refresh"}\'')
    write_auth(tmp_path, {"credsStore": "test"})
    await resolve(client_for(), f"{registry.host}/app")
    assert b"refresh_token=refresh" in asked[0].body


@pytest.mark.parametrize(
    "script",
    [
        "echo credentials not found in native keychain; exit 1",
        "echo not json",
        "sleep 30",
        "head -c 100000 /dev/zero",
        "echo '{\"Username\": 5}'",
    ],
)
async def test_helper_that_fails_leaves_the_pull_anonymous(
    serve: Any, client_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer tok")
    token_server(registry, {"token": "tok"})
    install_helper(tmp_path, monkeypatch, script)
    write_auth(tmp_path, {"credHelpers": {registry.host: "test"}})
    await resolve(client_for(credential_helper_seconds=0.5), f"{registry.host}/app")


async def test_helper_names_are_no_paths(serve: Any, client_for: Any, tmp_path: Path) -> None:
    registry = await serve()
    demand(registry, 'Basic realm="x"', lambda sent: False)
    write_auth(tmp_path, {"credHelpers": {registry.host: "../../bin/sh"}})
    with pytest.raises(AccessDenied, match="no basic auth"):
        await resolve(client_for(), f"{registry.host}/app")


async def test_nothing_secret_is_logged(
    serve: Any, client_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    registry = await serve()
    answers: list[Any] = [(503, {}), {"token": "t0ken-value"}]
    registry.add_image(b"layer")
    demand(registry, bearer(registry), lambda sent: sent == "Bearer t0ken-value")
    token_server(registry, *answers)
    credentials = Credentials("me", SECRET)
    with caplog.at_level(logging.DEBUG):
        await resolve(client_for(), f"{registry.host}/app", credentials)
    text = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "registry attempt failed" in text
    for secret in (SECRET, "t0ken-value", encoded("me", SECRET)):
        assert secret not in text
    assert SECRET not in repr(credentials)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"username": "u", "password": "p", "auth": "ignored"}, Credentials("u", "p")),
        ({"identity_token": "i", "auth": "ignored"}, Credentials(identity_token="i")),
        ({"auth": encoded("u", "p:q")}, Credentials("u", "p:q")),
        ({"auth": base64.b64encode(b"u:p\x00\x00").decode()}, Credentials("u", "p")),
        ({"registry_token": "r"}, Credentials(registry_token="r")),
        ({"server_address": "x"}, None),
        ({}, None),
    ],
)
def test_credentials_of_a_request(fields: dict[str, str], expected: Credentials | None) -> None:
    assert Credentials.from_cri(api_pb2.AuthConfig(**fields)) == expected


@pytest.mark.parametrize("auth", ["!!!", "bm9jb2xvbg==", "Og==", "/w=="])
def test_auth_that_is_no_pair(auth: str) -> None:
    with pytest.raises(InvalidCredentials, match="AuthConfig.auth") as caught:
        Credentials.from_cri(api_pb2.AuthConfig(auth=auth))
    assert auth not in str(caught.value)


async def test_server_address_that_is_no_address(serve: Any, client_for: Any) -> None:
    registry = await serve()
    demand(registry, 'Basic realm="x"', lambda sent: False)
    given = Credentials("me", SECRET, server_address="https://[bad/v1/")
    with pytest.raises(InvalidCredentials, match="AuthConfig.server_address"):
        await resolve(client_for(), f"{registry.host}/app", given)
