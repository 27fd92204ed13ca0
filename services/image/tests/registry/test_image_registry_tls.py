"""TLS: own CA, client certificates, plain HTTP where it may be."""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from triptych_image.registry import InvalidHostsConfig, RegistryUnavailable, UnexpectedResponse
from triptych_image.registry.http.origin import Origin
from triptych_image.registry.http.plain import PlainHosts
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


class Front:
    """A port that speaks plain HTTP or TLS, whichever registry it leads to.

    :ivar hellos: connections that began with a TLS hello.
    :ivar answer: what the wrong kind of connection gets.
    """

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self.answer = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server."
        self.hellos = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        first = await reader.read(1)
        self.hellos += first == b"\x16"
        if (first == b"\x16") != (self.registry.scheme == "https"):
            writer.write(self.answer)
            writer.close()
            return
        host, _, port = self.registry.host.rpartition(":")
        answers, upstream = await asyncio.open_connection(host, int(port))
        upstream.write(first)
        await asyncio.gather(self.pipe(reader, upstream), self.pipe(answers, writer))

    async def pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


async def test_plain_host_is_asked_by_tls_once(serve: Any, client_for: Any) -> None:
    registry = await serve()
    registry.add_image(b"layer")
    client = client_for()
    front = Front(registry)
    async with front as host:
        for _ in range(3):
            await resolve(client, f"{host}/app")
            client.close()  # so that the next one connects again
    assert front.hellos == 1
    assert len(registry.seen) == 3


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.0 400 Bad Request\r\n\r\nTLS wanted", b"\x15\x03\x01\0\2\2\x0a", b""]
)
async def test_host_that_speaks_tls_by_now(
    serve: Any, client_for: Any, certificates: Any, answer: bytes
) -> None:
    """What a server of HTTPS answers to a plain request makes the client try TLS again."""
    registry, secure = await serve(), await serve(tls=certificates.server_context())
    registry.add_image(b"layer")
    secure.add_image(b"layer")
    client = client_for()
    front = Front(registry)
    async with front as host:
        await resolve(client, f"{host}/app")
        client.close()
        front.registry, front.answer = secure, answer
        await resolve(client, f"{host}/app")
    assert (len(registry.seen), len(secure.seen)) == (1, 1)


def test_plain_hosts_are_bounded() -> None:
    known = PlainHosts()
    origins = [Origin("https", "localhost", port) for port in range(1, 1000)]
    for origin in origins:
        known.add(origin)
    remembered = [origin for origin in origins if origin in known]
    assert remembered == origins[-256:]
    assert known.forget(origins[-1]) and not known.forget(origins[-1])
    assert origins[-1] not in known


async def test_plain_is_no_answer_for_a_host_of_https(serve: Any, client_for: Any, hosts_toml: Any) -> None:
    """That a host spoke plain HTTP once means nothing after its configuration asks for TLS."""
    registry = await serve()
    registry.add_image(b"layer")
    client = client_for()
    await resolve(client, f"{registry.host}/app")
    hosts_toml(registry.host, f'server = "https://{registry.host}"\n')
    with pytest.raises(RegistryUnavailable, match="TLS"):
        await resolve(client, f"{registry.host}/app")
    assert len(registry.seen) == 1


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
