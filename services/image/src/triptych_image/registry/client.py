"""The registry client: what the rest of the image daemon calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from triptych_errors import Unimplemented
from triptych_oci import Descriptor, Digest, PlatformMatcher, Reference

from triptych_image.registry.credentials import Credentials
from triptych_image.registry.settings import RegistrySettings
from triptych_image.registry.types import BlobStats, Progress, Resolved, Selected

OpenSource = Callable[[], AsyncIterator[bytes]]
"""Opens the bytes of a blob from its start; called again when an upload is repeated."""


class Repository:
    """One repository of one registry for the time of one pull or push.

    Host configuration and auth files are read when it is made; tokens live as long as it does. Methods may
    run concurrently. Hosts are tried in configured order; each call falls over to the next by itself.
    """

    reference: Reference

    async def resolve(self, selector: str | None = None) -> Resolved:
        """Find what a tag or digest stands for, one GET; digest verified, parsed.

        :param selector: tag or digest; None for the reference's digest, else its tag.
        :raises ContentNotFound: no host has it.
        :raises AccessDenied: pull access denied.
        :raises RegistryUnavailable: no host answers.
        :raises InvalidDocument, UnsupportedDocument: what it stands for is no image manifest.
        """
        raise Unimplemented("registry client")

    async def fetch_manifest(self, descriptor: Descriptor) -> Resolved:
        """A manifest or index by digest, size and digest verified, parsed."""
        raise Unimplemented("registry client")

    async def select(self, top: Resolved, matcher: PlatformMatcher) -> Selected:
        """Descend from an index (nested ones too) to the manifest for a platform.

        :raises NoMatchingPlatform: naming the platforms there are.
        """
        raise Unimplemented("registry client")

    async def fetch_blob(self, descriptor: Descriptor, *, limit: int | None = None) -> bytes:
        """A small blob (a config) whole, size and digest verified.

        :param limit: bytes accepted; None for `max_manifest_bytes`.
        """
        raise Unimplemented("registry client")

    def open_blob(
        self, descriptor: Descriptor, *, offset: int = 0, progress: Progress | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes of a blob from an offset, in order, in chunks of up to 256 KiB.

        Exactly `descriptor.size - offset` bytes or an error. The digest is NOT verified here, since the
        consumer hashes anyway; when it does not match call `distrust` and start again. Close it (aclosing)
        when leaving early.

        :raises NoProgress: nothing arrived for `no_progress_seconds`, network waits only.
        """
        raise Unimplemented("registry client")

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
        raise Unimplemented("registry client")

    def distrust(self, descriptor: Descriptor) -> bool:
        """Say that what came for this blob had another digest; the host that served it is left out for it.

        :returns: whether another host is left to try.
        """
        raise Unimplemented("registry client")

    async def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests that refer to this one, by the referrers API or its tag scheme; empty when none."""
        raise Unimplemented("registry client")

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the push host has it already."""
        raise Unimplemented("registry client")

    async def push_blob(
        self,
        descriptor: Descriptor,
        source: OpenSource,
        *,
        mount_from: str | None = None,
        progress: Progress | None = None,
    ) -> bool:
        """Upload a blob in one piece unless the registry has it or can mount it from another repository.

        :returns: whether bytes were sent.
        """
        raise Unimplemented("registry client")

    async def push_manifest(self, data: bytes, media_type: str, selector: str | None = None) -> Digest:
        """Upload a manifest under a tag or its digest; blobs and sub-manifests first."""
        raise Unimplemented("registry client")


class RegistryClient:
    """Connections, host health and settings that all pulls of the daemon share."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""

    def reconfigure(self, settings: RegistrySettings) -> None:
        """Take changed settings; pulls that run keep the old ones."""
        self.settings = settings

    def repository(
        self, reference: Reference, credentials: Credentials | None = None
    ) -> AbstractAsyncContextManager[Repository]:
        """The repository of a reference.

        :param credentials: of the request; go to the reference's own registry only, or to `server_address`.
            Other hosts (mirrors) get what auth files and `hosts.toml` headers have for them.
        :raises InvalidHostsConfig: naming the file.
        """
        raise Unimplemented("registry client")


__all__ = ["OpenSource", "RegistryClient", "Repository"]
