"""One repository: what a pull or push does with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from triptych_oci import (
    Descriptor,
    Digest,
    InvalidDigest,
    PlatformMatcher,
    Reference,
    parse_manifest,
)
from triptych_service.tracing import span

from triptych_image.registry import manifests, push
from triptych_image.registry.access import Access, Shared
from triptych_image.registry.credentials import Credentials
from triptych_image.registry.endpoint import Endpoint
from triptych_image.registry.errors import ContentMismatch, ContentNotFound, ContentTooLarge
from triptych_image.registry.hosts_toml import Capability
from triptych_image.registry.keyring import Keyring
from triptych_image.registry.manifests import Stored
from triptych_image.registry.push import OpenSource
from triptych_image.registry.sinks import BufferSink, DescriptorSink, QueueSink
from triptych_image.registry.tokens import Authorizer
from triptych_image.registry.transfer import Transfer
from triptych_image.registry.types import BlobStats, Progress, Resolved, Selected

log = logging.getLogger(__name__)


class Repository:
    """One repository of one registry for the time of one pull or push.

    Host configuration is read when it is made, auth files when a host asks; tokens live as long as it does.
    Methods may run concurrently. Hosts are tried in configured order; each call falls over to the next by
    itself. Made by `RegistryClient.repository`.
    """

    def __init__(
        self,
        shared: Shared,
        reference: Reference,
        credentials: Credentials | None,
        stored: Stored | None = None,
    ) -> None:
        settings = shared.settings
        keyring = Keyring(reference, credentials, settings)
        authorizer = Authorizer(shared.http, keyring, shared.challenges)
        hosts = shared.hosts.hosts(reference.domain, settings.config_path)
        self.reference = reference
        self._settings = settings
        self._stored = stored
        self._access = Access(shared, hosts, authorizer, reference.path)

    def _local(self, digest: Digest, size: int | None = None) -> bytes | None:
        """The bytes of a manifest or config that is here already, checked as if it had been fetched."""
        raw = self._stored(digest) if self._stored is not None else None
        if raw is None or (size is not None and len(raw) != size) or not digest.matches(raw):
            return None
        return raw

    async def resolve(self, selector: str | None = None) -> Resolved:
        """Find what a tag or digest stands for; digest verified, parsed.

        The registry is asked even for what is here already, since it decides who may have it; then it is a
        HEAD only.

        :param selector: tag or digest; None for the reference's digest, else its tag.
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
            if self._stored is not None and (head := await manifests.head_manifest(endpoint, selector)):
                digest, media_type = head
                raw = self._local(digest) if expected in (None, digest) else None
                if raw is not None:
                    return manifests.served(raw, digest, media_type, endpoint.host.name, self._settings)
            return await manifests.get_manifest(endpoint, selector, expected, self._settings)

        with span("registry resolve", image=what) as step:
            found = await self._access.over_hosts(wanted, what, attempt)
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

        raw = self._local(descriptor.digest, descriptor.size)
        if raw is not None:
            document = parse_manifest(raw, media_type=descriptor.media_type, what=what, limit=limit)
            return Resolved(
                Descriptor(document.media_type, descriptor.digest, descriptor.size), raw, document, ""
            )

        async def attempt(endpoint: Endpoint) -> Resolved:
            digest = descriptor.digest
            return await manifests.get_manifest(endpoint, digest, digest, self._settings)

        found = await self._access.over_hosts(Capability.PULL, what, attempt)
        manifests.check_size(descriptor, found, what)
        return found

    async def select(self, top: Resolved, matcher: PlatformMatcher) -> Selected:
        """Descend from an index (nested ones too) to the manifest for a platform.

        :raises NoMatchingPlatform: naming the platforms there are.
        """
        return await manifests.select(
            top, matcher, self.fetch_manifest, self.fetch_blob, str(self.reference)
        )

    async def fetch_blob(
        self, descriptor: Descriptor, *, limit: int | None = None, progress: Progress | None = None
    ) -> bytes:
        """A small blob (a config) whole, size and digest verified.

        :param limit: bytes accepted; None for `max_manifest_bytes`.
        :param progress: counts what arrives, also what arrives again.
        :raises ContentTooLarge: above the limit.
        """
        what = self._name(descriptor.digest)
        most = self._settings.max_manifest_bytes if limit is None else limit
        _check_limit(descriptor, most, what)
        if (raw := self._local(descriptor.digest, descriptor.size)) is not None:
            return raw

        while True:
            source, sink = self._access.source(descriptor, what), BufferSink(descriptor.size)
            try:
                await Transfer(source, sink, self._access.chunk_memory, progress=progress).run()
            finally:
                self._access.served(source)
            if descriptor.digest.matches(sink.view):
                return sink.finish()
            if not self.distrust(descriptor):
                raise ContentMismatch(f"{what}: {source.host}: served the wrong content")
            log.warning("blob has a wrong digest, fetching again", extra={"blob": what, "host": source.host})

    async def open_blob(
        self, descriptor: Descriptor, *, offset: int = 0, progress: Progress | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes of a blob from an offset, in order, in chunks of up to 256 KiB.

        Exactly `descriptor.size - offset` bytes or an error. The digest is NOT verified here, since the
        consumer hashes anyway; when it does not match call `distrust` and start again. Close it (aclosing)
        when leaving early.

        :raises NoProgress: nothing arrived for `no_progress_seconds`, network waits only.
        """
        source = self._access.source(descriptor, self._name(descriptor.digest))
        sink = QueueSink()
        transfer = Transfer(source, sink, self._access.chunk_memory, offset=offset, progress=progress)

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
        finally:
            self._access.served(source)
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
        source = self._access.source(descriptor, self._name(descriptor.digest))
        sink = DescriptorSink(fd)
        transfer = Transfer(source, sink, self._access.chunk_memory, offset=offset, progress=progress)
        with span("registry fetch", digest=descriptor.digest, bytes=descriptor.size - offset) as step:
            try:
                await transfer.run()
            finally:
                self._access.served(source)
            step.set("host", source.host)
        return BlobStats(descriptor.size - offset, source.host, source.requests, sink.spliced)

    def distrust(self, descriptor: Descriptor) -> bool:
        """Say that what came for this blob had another digest; the host that served it is left out for it.

        :returns: whether another host is left to try.
        """
        return self._access.distrust(descriptor)

    async def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests that refer to this one, by the referrers API or its tag scheme; empty when none."""
        what = f"referrers of {self.reference.name}@{digest}"

        async def attempt(endpoint: Endpoint) -> list[Descriptor] | None:
            return await manifests.get_referrers(endpoint, digest, artifact_type, self._settings)

        found = None
        if self._access.having(Capability.REFERRERS):
            found = await self._access.over_hosts(Capability.REFERRERS, what, attempt)
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

        return await self._access.over_hosts(Capability.PUSH, self._name(descriptor.digest), attempt)

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

        return await self._access.over_hosts(Capability.PUSH, self._name(descriptor.digest), attempt)

    async def push_manifest(self, data: bytes, media_type: str, selector: str | None = None) -> Digest:
        """Upload a manifest under a tag or its digest; blobs and sub-manifests first."""
        chosen = selector or self.reference.selector

        async def attempt(endpoint: Endpoint) -> Digest:
            return await push.put_manifest(endpoint, data, media_type, chosen)

        return await self._access.over_hosts(Capability.PUSH, self._name(chosen), attempt)

    def _name(self, selector: str) -> str:
        separator = "@" if _digest(selector) else ":"
        return f"{self.reference.name}{separator}{selector}"


def _check_limit(descriptor: Descriptor, limit: int, what: str) -> None:
    if descriptor.size > limit:
        raise ContentTooLarge(f"{what}: {descriptor.size} bytes, more than the limit of {limit}")


def _digest(selector: str) -> Digest | None:
    try:
        return Digest(selector)
    except InvalidDigest:
        return None
