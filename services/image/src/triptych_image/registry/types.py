"""The records that the registry side hands out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from triptych_oci import Descriptor, Index, Manifest

Progress = Callable[[int], None]
"""Called with the number of bytes that arrived since the last call."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for right now.

    :param descriptor: media type, digest and size of the manifest or index.
    :param raw: its bytes as served; they have that digest.
    :param document: the same parsed.
    :param host: who served it, for people and for progress (`mirror.local:5000`).
    """

    descriptor: Descriptor
    raw: bytes
    document: Manifest | Index
    host: str


@dataclass(frozen=True, slots=True)
class Selected:
    """The image manifest for one platform.

    :param top: what the name stands for; the repo digest.
    :param chain: indexes on the way down, `top` first when it is one; keep them to be able to push.
    :param manifest: the manifest itself, always a `Manifest` document.
    """

    top: Resolved
    chain: tuple[Resolved, ...]
    manifest: Resolved

    @property
    def document(self) -> Manifest:
        document = self.manifest.document
        assert isinstance(document, Manifest)
        return document


@dataclass(frozen=True, slots=True)
class BlobStats:
    """How a blob came.

    :param received: bytes delivered by this call, so size minus offset.
    :param host: who served the last byte.
    :param requests: HTTP requests it took.
    :param spliced: bytes that went from socket to descriptor inside the kernel.
    """

    received: int
    host: str
    requests: int
    spliced: int
