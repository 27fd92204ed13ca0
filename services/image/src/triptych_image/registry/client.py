"""The registry client: what the rest of the image daemon calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar

from triptych_oci import Descriptor, Digest, InvalidDigest, PlatformMatcher, Reference
from triptych_service.tracing import span

from triptych_image.registry import manifests, push
from triptych_image.registry.blobs import BlobSource
from triptych_image.registry.challenge import Challenge
from triptych_image.registry.credentials import Credentials
from triptych_image.registry.endpoint import Endpoint
from triptych_image.registry.errors import ContentNotFound, ContentTooLarge
from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.hosts import Host, HostsConfig
from triptych_image.registry.hosts_toml import Capability
from triptych_image.registry.http import HttpClient
from triptych_image.registry.keyring import Keyring
from triptych_image.registry.manifests import Stored
from triptych_image.registry.push import OpenSource
from triptych_image.registry.settings import RegistrySettings
from triptych_image.registry.sinks import DescriptorSink, QueueSink
from triptych_image.registry.tokens import Authorizer
from triptych_image.registry.transfer import Transfer
from triptych_image.registry.types import BlobStats, Progress, Resolved, Selected
from triptych_image.registry.walk import HostHealth, Walk

T = TypeVar("T")


class Repository:
    """One repository of one registry for the time of one pull or push.

    Host configuration is read when it is made, auth files when a host asks; tokens live as long as it does.
    Methods may run concurrently. Hosts are tried in configured order; each call falls over to the next by
    itself. Made by `RegistryClient.repository`.
    """

    def __init__(
        self, client: RegistryClient, reference: Reference, credentials: Credentials | None
    ) -> None:
        settings = client.settings
        self.reference = reference
        self._client = client
        self._settings = settings
        self._hosts = client.hosts.hosts(reference.domain, settings.config_path)
        keyring = Keyring(reference, credentials, settings)
        self._authorizer = Authorizer(client.http, keyring, client.challenges)
        self._distrusted: dict[Digest, set[str]] = {}
        self._served: dict[Digest, str] = {}

    async def resolve(self, selector: str | None = None, *, stored: Stored | None = None) -> Resolved:
        """Find what a tag or digest stands for; digest verified, parsed.

        :param selector: tag or digest; None for the reference's digest, else its tag.
        :param stored: gives the bytes of manifests that are here already. With it a HEAD asks for the
            digest first, and a GET (which registries count) follows only for what is not here.
        :raises ContentNotFound: no host has it.
        :raises AccessDenied: pull access denied.
        :raises RegistryUnavailable: no host answers.
        :raises InvalidDocument, UnsupportedDocument: what it stands for is no image manifest.
        """
        selector = selector or self.reference.selector
        expected = _digest(selector)
        what = self._name(selector)
        wanted = Capability.PULL if expected else Capability.PULL | Capability.RESOLVE

        async def attempt(endpoint: Endpoint) -> Resolved:
            if stored is not None and (head := await manifests.head_manifest(endpoint, selector)):
                digest, media_type = head
                raw = stored(digest) if expected in (None, digest) else None
                if raw is not None and digest.matches(raw):
                    return manifests.resolved(
                        raw, digest, media_type, endpoint.host.name, what, self._settings
                    )
            return await manifests.get_manifest(endpoint, selector, expected, self._settings, what)

        with span("registry resolve", image=what) as step:
            found = await self._over_hosts(wanted, what, attempt)
            step.set("host", found.host)
        return found

    async def fetch_manifest(self, descriptor: Descriptor) -> Resolved:
        """A manifest or index by digest; size and digest verified, parsed."""
        what = self._name(descriptor.digest)
        limit = self._settings.max_manifest_bytes
        if descriptor.size > limit:
            raise ContentTooLarge(
                f"{what}: manifest: {descriptor.size} bytes, more than the limit of {limit}"
            )

        async def attempt(endpoint: Endpoint) -> Resolved:
            digest = descriptor.digest
            return await manifests.get_manifest(endpoint, digest, digest, self._settings, what)

        found = await self._over_hosts(Capability.PULL, what, attempt)
        manifests.check_size(descriptor, found, what)
        return found

    async def select(self, top: Resolved, matcher: PlatformMatcher) -> Selected:
        """Descend from an index (nested ones too) to the manifest for a platform.

        :raises NoMatchingPlatform: naming the platforms there are.
        """
        return await manifests.select(
            top, matcher, self.fetch_manifest, self.fetch_blob, str(self.reference)
        )

    async def fetch_blob(self, descriptor: Descriptor, *, limit: int | None = None) -> bytes:
        """A small blob (a config) whole, size and digest verified.

        :param limit: bytes accepted; None for `max_manifest_bytes`.
        :raises ContentTooLarge: above the limit.
        """
        what = self._name(descriptor.digest)
        most = self._settings.max_manifest_bytes if limit is None else limit
        _check_limit(descriptor, most, what)

        async def attempt(endpoint: Endpoint) -> bytes:
            return await manifests.get_blob(endpoint, descriptor, most, self._settings)

        return await self._over_hosts(Capability.PULL, what, attempt)

    async def open_blob(
        self, descriptor: Descriptor, *, offset: int = 0, progress: Progress | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes of a blob from an offset, in order, in chunks of up to 256 KiB.

        Exactly `descriptor.size - offset` bytes or an error. The digest is NOT verified here, since the
        consumer hashes anyway; when it does not match call `distrust` and start again. Close it (aclosing)
        when leaving early.

        :raises NoProgress: nothing arrived for `no_progress_seconds`, network waits only.
        """
        source = self._source(descriptor)
        sink = QueueSink()
        transfer = Transfer(source, sink, self._client.chunk_memory, offset=offset, progress=progress)

        async def feed() -> None:
            try:
                await transfer.run()
            finally:
                sink.end()

        feeder = asyncio.ensure_future(feed())
        try:
            while chunk := await sink.get():
                yield chunk
            await feeder
            self._served[descriptor.digest] = source.host
        finally:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)

    async def copy_blob_to_fd(
        self, descriptor: Descriptor, fd: int, *, offset: int = 0, progress: Progress | None = None
    ) -> BlobStats:
        """The same into a pipe or socket, without passing Python where the kernel can do it.

        Plain HTTP with a known length is spliced from socket to pipe (one splice call for up to 1 MiB); TLS
        is decrypted into one reused buffer and written from there. `fd` is made non-blocking, its pipe is
        widened, and it stays open: closing it is the caller's. A regular file does not fit here.

        Exactly `descriptor.size - offset` bytes are written unless it raises; the digest is the reader's to
        verify (then `distrust`). A slow reader never counts as a stalled host.

        :raises SinkClosed: the reader closed its end.
        """
        source = self._source(descriptor)
        sink = DescriptorSink(fd)
        with span("registry fetch", digest=descriptor.digest, bytes=descriptor.size - offset) as step:
            await Transfer(source, sink, self._client.chunk_memory, offset=offset, progress=progress).run()
            step.set("host", source.host)
        self._served[descriptor.digest] = source.host
        return BlobStats(descriptor.size - offset, source.host, source.requests, sink.spliced)

    def distrust(self, descriptor: Descriptor) -> bool:
        """Say that what came for this blob had another digest; the host that served it is left out for it.

        :returns: whether another host is left to try.
        """
        distrusted = self._distrusted.setdefault(descriptor.digest, set())
        if served := self._served.get(descriptor.digest):
            distrusted.add(served)
        return any(host.name not in distrusted for host in self._with(Capability.PULL))

    async def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests that refer to this one, by the referrers API or its tag scheme; empty when none."""
        what = f"referrers of {self.reference.name}@{digest}"

        async def attempt(endpoint: Endpoint) -> list[Descriptor] | None:
            return await manifests.get_referrers(endpoint, digest, artifact_type, self._settings, what)

        found = await self._over_hosts(Capability.REFERRERS, what, attempt)
        if found is None:
            found = await self._tagged_referrers(digest, what)
        return [one for one in found if artifact_type is None or one.artifact_type == artifact_type]

    async def _tagged_referrers(self, digest: Digest, what: str) -> list[Descriptor]:
        """For registries without the API: an index under a tag made of the digest."""
        try:
            top = await self.resolve(f"{digest.algorithm}-{digest.hex}"[:128])
        except ContentNotFound:
            return []
        return list(manifests.index_entries(top.raw, what))

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the push host has it already."""

        async def attempt(endpoint: Endpoint) -> bool:
            return await push.head_blob(endpoint, descriptor.digest)

        return await self._over_hosts(Capability.PUSH, self._name(descriptor.digest), attempt, timed=False)

    async def push_blob(
        self,
        descriptor: Descriptor,
        source: OpenSource,
        *,
        mount_from: str | None = None,
        progress: Progress | None = None,
    ) -> bool:
        """Upload a blob in one piece unless the registry has it or can mount it from another repository.

        :param source: called again for another attempt; `progress` then counts again.
        :returns: whether bytes were sent.
        """

        async def attempt(endpoint: Endpoint) -> bool:
            return await push.upload_blob(endpoint, descriptor, source, mount_from, progress)

        return await self._over_hosts(Capability.PUSH, self._name(descriptor.digest), attempt, timed=False)

    async def push_manifest(self, data: bytes, media_type: str, selector: str | None = None) -> Digest:
        """Upload a manifest under a tag or its digest; blobs and sub-manifests first."""
        chosen = selector or self.reference.selector

        async def attempt(endpoint: Endpoint) -> Digest:
            return await push.put_manifest(endpoint, data, media_type, chosen)

        return await self._over_hosts(Capability.PUSH, self._name(chosen), attempt, timed=False)

    def _name(self, selector: str) -> str:
        separator = "@" if _digest(selector) else ":"
        return f"{self.reference.name}{separator}{selector}"

    def _with(self, capability: Capability) -> list[Host]:
        hosts = [host for host in self._hosts if capability in host.capabilities]
        # A push goes to one place.
        return hosts[:1] if capability is Capability.PUSH else hosts

    def _endpoint(self, host: Host) -> Endpoint:
        return Endpoint(self._client.http, self._authorizer, host, self.reference.path)

    def _source(self, descriptor: Descriptor) -> BlobSource:
        distrusted = self._distrusted.get(descriptor.digest, set())
        hosts = [host for host in self._with(Capability.PULL) if host.name not in distrusted]
        what = self._name(descriptor.digest)
        return BlobSource(descriptor, hosts, self._endpoint, self._settings, self._client.health, what)

    async def _over_hosts(
        self,
        capability: Capability,
        what: str,
        attempt: Callable[[Endpoint], Awaitable[T]],
        *,
        timed: bool = True,
    ) -> T:
        """Do something small at the first host where it works.

        :param timed: whether an attempt as a whole must end within the host's budget.
        """
        walk = Walk(self._with(capability), self._settings, self._client.health, what)
        seconds = self._settings.host_seconds
        while True:
            host = await walk.next()
            try:
                async with asyncio.timeout(seconds if timed else None):
                    result = await attempt(self._endpoint(host))
            except AttemptFailed as failure:
                walk.failed(failure)
            except TimeoutError:
                walk.failed(AttemptFailed(Failure.SLOW, host.name, f"not done within {seconds:g} s"))
            else:
                walk.succeeded()
                return result


def _check_limit(descriptor: Descriptor, limit: int, what: str) -> None:
    if descriptor.size > limit:
        raise ContentTooLarge(f"{what}: {descriptor.size} bytes, more than the limit of {limit}")


def _digest(selector: str) -> Digest | None:
    try:
        return Digest(selector)
    except InvalidDigest:
        return None


class RegistryClient:
    """Connections, host health and settings that all pulls of the daemon share."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self.http = HttpClient(settings)
        self.hosts = HostsConfig()
        self.health = HostHealth()
        self.challenges: dict[str, Challenge] = {}
        self.chunk_memory = _permits(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.http.close()

    def reconfigure(self, settings: RegistrySettings) -> None:
        """Take changed settings; pulls that run keep the old ones."""
        self.settings = settings
        self.http.reconfigure(settings)
        self.chunk_memory = _permits(settings)

    @asynccontextmanager
    async def repository(
        self, reference: Reference, credentials: Credentials | None = None
    ) -> AsyncIterator[Repository]:
        """The repository of a reference.

        :param credentials: of the request; go to the reference's own registry only, or to `server_address`.
            Other hosts (mirrors) get what auth files and `hosts.toml` headers have for them.
        :raises InvalidHostsConfig: naming the file.
        """
        yield Repository(self, reference, credentials)


def _permits(settings: RegistrySettings) -> asyncio.Semaphore:
    return asyncio.Semaphore(max(1, settings.chunk_memory_bytes // settings.chunk_bytes))
