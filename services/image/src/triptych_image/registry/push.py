"""Uploads: blobs in one piece or mounted, manifests (OCI distribution spec, "Push")."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from urllib.parse import urlencode, urlsplit, urlunsplit

from triptych_oci import Descriptor, Digest

from triptych_image.registry.endpoint import PUSH, Endpoint
from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.http import Response
from triptych_image.registry.http.origin import BadUrl, join
from triptych_image.registry.replies import failure_of
from triptych_image.registry.types import Progress

OpenSource = Callable[[], AsyncIterator[bytes]]
"""Opens the bytes of a blob from its start; called again when an upload is repeated."""


async def head_blob(endpoint: Endpoint, digest: Digest) -> bool:
    """Whether the repository has a blob."""
    response = await endpoint.send("HEAD", endpoint.url(f"blobs/{digest}"), actions=PUSH)
    async with response:
        if response.status in (200, 404):
            return response.status == 200
        raise await failure_of(response, f"blob {digest}")


async def upload_blob(
    endpoint: Endpoint,
    descriptor: Descriptor,
    source: OpenSource,
    mount_from: str | None,
    progress: Progress | None,
) -> bool:
    """Upload a blob unless it is there or can be mounted.

    :returns: whether bytes were sent.
    :raises AttemptFailed: when the host does not take it.
    """
    if await head_blob(endpoint, descriptor.digest):
        return False
    started = await _start(endpoint, descriptor.digest, mount_from)
    if started is None:
        return False
    parts = urlsplit(started)
    extra = urlencode({"digest": descriptor.digest})
    url = urlunsplit(parts._replace(query=f"{parts.query}&{extra}" if parts.query else extra))
    headers = (("Content-Type", "application/octet-stream"), ("Content-Length", str(descriptor.size)))

    async def body() -> AsyncIterator[bytes]:
        async for chunk in source():
            yield chunk
            if progress is not None:
                progress(len(chunk))

    response = await endpoint.send("PUT", url, headers=headers, actions=PUSH, body=body)
    async with response:
        if response.status not in (201, 204):
            raise await failure_of(response, f"upload of blob {descriptor.digest}")
    return True


async def _start(endpoint: Endpoint, digest: Digest, mount_from: str | None) -> str | None:
    """Begin an upload: where to send it, or None when the blob was mounted instead."""
    query: tuple[tuple[str, str], ...] = ()
    also = ""
    if mount_from is not None and mount_from != endpoint.path:
        query = (("mount", digest), ("from", mount_from))
        also = f"repository:{mount_from}:pull"
    url = endpoint.url("blobs/uploads/", query)
    headers = (("Content-Length", "0"),)
    response = await endpoint.send("POST", url, headers=headers, actions=PUSH, also=also)
    async with response:
        if response.status == 201 and query:
            return None
        if response.status != 202:
            raise await failure_of(response, "upload")
        return _location(response, url)


def _location(response: Response, url: str) -> str:
    location = response.head.get(b"location")
    if not location:
        raise AttemptFailed(Failure.PROTOCOL, response.host, "upload started without a Location")
    try:
        return join(url, location)
    except BadUrl as error:
        raise AttemptFailed(Failure.PROTOCOL, response.host, f"upload: {error}") from None


async def put_manifest(endpoint: Endpoint, data: bytes, media_type: str, selector: str) -> Digest:
    """Upload a manifest.

    :raises AttemptFailed: when the host does not take it, or took something else.
    """
    headers = (("Content-Type", media_type), ("Content-Length", str(len(data))))

    async def body() -> AsyncIterator[bytes]:
        yield data

    url = endpoint.url(f"manifests/{selector}")
    response = await endpoint.send("PUT", url, headers=headers, actions=PUSH, body=body)
    async with response:
        if response.status not in (200, 201, 202, 204):
            raise await failure_of(response, f"upload of manifest {selector}")
    digest = Digest.of(data)
    claimed = response.head.get(b"docker-content-digest")
    if claimed.startswith("sha256:") and claimed != digest:
        raise AttemptFailed(Failure.MISMATCH, response.host, f"stored manifest {digest} as {claimed[:80]}")
    return digest
