"""Manifests: found by name, fetched by digest, verified, descended to a platform."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from triptych_oci import (
    Descriptor,
    Digest,
    Index,
    InvalidDigest,
    InvalidDocument,
    Manifest,
    MediaType,
    NoMatchingPlatform,
    Platform,
    PlatformMatcher,
    UnsupportedDocument,
    parse_image_config,
    parse_manifest,
)

from triptych_image.registry.endpoint import Endpoint
from triptych_image.registry.errors import ContentMismatch
from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http import Response
from triptych_image.registry.http.origin import BadUrl, join
from triptych_image.registry.replies import failure_of
from triptych_image.registry.settings import RegistrySettings
from triptych_image.registry.stall import StallGuard
from triptych_image.registry.types import Resolved, Selected

ACCEPT: Final = ", ".join(
    (
        MediaType.DOCKER_MANIFEST,
        MediaType.DOCKER_INDEX,
        MediaType.OCI_MANIFEST,
        MediaType.OCI_INDEX,
        "*/*",
    )
)
_MAX_DEPTH: Final = 4
_MAX_PROBED: Final = 8
_MAX_PAGES: Final = 50
_MAX_REFERRERS: Final = 4000
_NO_REFERRERS: Final = frozenset({400, 404, 405, 406, 501})
"""What registries answer that do not know the referrers API; go-containerregistry takes 400 for it too."""
_NEXT: Final = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')

Stored = Callable[[Digest], bytes | None]
FetchManifest = Callable[[Descriptor], Awaitable[Resolved]]
FetchBlob = Callable[[Descriptor], Awaitable[bytes]]


async def get_manifest(
    endpoint: Endpoint, selector: str, expected: Digest | None, settings: RegistrySettings
) -> Resolved:
    """GET a manifest by tag or digest.

    :param expected: the digest it must have; None for what a tag stands for.
    :raises AttemptFailed: when this host does not serve it rightly.
    """
    url = endpoint.url(f"manifests/{selector}")
    response = await endpoint.send("GET", url, headers=(("Accept", ACCEPT),), keep_tls=expected is None)
    async with response:
        if response.status != 200:
            raise await failure_of(response, "manifest")
        with StallGuard(response, settings):
            raw = await response.read(settings.max_manifest_bytes, "manifest")
        digest = _verified(response, raw, expected)
    return served(raw, digest, response.head.get(b"content-type"), endpoint.host.name, settings)


def _verified(response: Response, raw: bytes, expected: Digest | None) -> Digest:
    if expected is None:
        try:
            claimed = Digest(response.head.get(b"docker-content-digest"))
        except InvalidDigest:
            return Digest.of(raw)
        expected = claimed
    if not expected.matches(raw):
        found = Digest.of(raw, expected.algorithm)
        raise AttemptFailed(Failure.MISMATCH, response.host, f"manifest has digest {found}, not {expected}")
    return expected


def served(raw: bytes, digest: Digest, media_type: str, host: str, settings: RegistrySettings) -> Resolved:
    """What a host gave for a name, parsed. A captive portal's page must not end the walk over the hosts.

    :raises AttemptFailed: MALFORMED or UNSUPPORTED.
    """
    try:
        document = parse_manifest(raw, media_type=media_type, limit=settings.max_manifest_bytes)
    except InvalidDocument as error:
        raise AttemptFailed(Failure.MALFORMED, host, str(error)) from None
    except UnsupportedDocument as error:
        raise AttemptFailed(Failure.UNSUPPORTED, host, str(error)) from None
    return Resolved(Descriptor(document.media_type, digest, len(raw)), raw, document, host)


async def head_manifest(endpoint: Endpoint, selector: str) -> tuple[Digest, str] | None:
    """Digest and media type of what a tag stands for, without a download; None when the host won't tell.

    Registries count GETs of manifests as pulls (Docker Hub limits them), HEADs not.
    """
    url = endpoint.url(f"manifests/{selector}")
    response = await endpoint.send("HEAD", url, headers=(("Accept", ACCEPT),), keep_tls=True)
    async with response:
        if response.status != 200:
            return None
        try:
            digest = Digest(response.head.get(b"docker-content-digest"))
        except InvalidDigest:
            return None
    return digest, response.head.get(b"content-type")


async def select(
    top: Resolved, matcher: PlatformMatcher, fetch: FetchManifest, fetch_blob: FetchBlob, what: str
) -> Selected:
    """Descend from `top` to the manifest for a platform; indexes may nest a little.

    :raises NoMatchingPlatform: naming the platforms there are.
    """
    chain: list[Resolved] = []
    current = top
    while isinstance(current.document, Index):
        if len(chain) >= _MAX_DEPTH:
            raise NoMatchingPlatform(f"{what}: indexes are nested more than {_MAX_DEPTH} deep")
        chain.append(current)
        current = await _step(current.document, matcher, fetch, fetch_blob, what)
    return Selected(top, tuple(chain), current)


async def _step(
    index: Index, matcher: PlatformMatcher, fetch: FetchManifest, fetch_blob: FetchBlob, what: str
) -> Resolved:
    entries = index.manifests or ()
    fitting = matcher.best(entries)
    if not fitting:
        async for candidate in _without_platform(index, fetch):
            if await _runs_on(candidate, matcher, fetch_blob):
                return candidate
    return await fetch(matcher.choose(fitting or entries, what))


async def _without_platform(index: Index, fetch: FetchManifest) -> AsyncIterator[Resolved]:
    """Entries that do not say their platform; their configs must."""
    for entry in [one for one in index.manifests or () if one.platform is None][:_MAX_PROBED]:
        yield await fetch(entry)


async def _runs_on(candidate: Resolved, matcher: PlatformMatcher, fetch_blob: FetchBlob) -> bool:
    document = candidate.document
    if not isinstance(document, Manifest) or not document.is_image:
        return isinstance(document, Index)
    config = parse_image_config(await fetch_blob(document.config))
    return matcher.rank(Platform.normalized(config.os, config.architecture, config.variant)) is not None


async def get_referrers(
    endpoint: Endpoint, digest: Digest, artifact_type: str | None, settings: RegistrySettings
) -> list[Descriptor] | None:
    """The referrers API (OCI distribution spec 1.1), page by page; None when the host has none.

    :raises AttemptFailed: when this host fails.
    """
    query = (("artifactType", artifact_type),) if artifact_type else ()
    url = endpoint.url(f"referrers/{digest}", query)
    found: list[Descriptor] = []
    for _ in range(_MAX_PAGES):
        response = await endpoint.send("GET", url, headers=(("Accept", MediaType.OCI_INDEX),), keep_tls=True)
        async with response:
            if response.status in _NO_REFERRERS:
                return None
            if response.status != 200:
                raise await failure_of(response, "referrers")
            with StallGuard(response, settings):
                raw = await response.read(settings.max_manifest_bytes, "referrers")
        try:
            found += index_entries(raw, "referrers")
        except (InvalidDocument, UnsupportedDocument) as error:
            raise AttemptFailed(Failure.MALFORMED, endpoint.host.name, str(error)) from None
        following = _NEXT.search(response.head.get(b"link"))
        if following is None or len(found) >= _MAX_REFERRERS:
            break
        try:
            url = join(url, following[1])
        except BadUrl as error:
            raise AttemptFailed(Failure.PROTOCOL, endpoint.host.name, f"referrers: {error}") from None
    return found


def index_entries(raw: bytes, what: str) -> tuple[Descriptor, ...]:
    """What an index lists; nothing when it is none.

    :raises InvalidDocument: when it is malformed.
    """
    document = parse_manifest(raw, what=what)
    return document.manifests or () if isinstance(document, Index) else ()


def check_size(descriptor: Descriptor, got: Resolved, what: str) -> None:
    """The size that a descriptor tells must be right as well as the digest.

    :raises ContentMismatch: when it is not.
    """
    if len(got.raw) != descriptor.size:
        raise ContentMismatch(f"{what}: {len(got.raw)} bytes, its descriptor says {descriptor.size}")
