"""OCI image layouts: an index, and blobs by digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from triptych_oci import (
    ANNOTATION_IMAGE_NAME,
    ANNOTATION_REF_NAME,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Platform,
    PlatformMatcher,
    parse_image_config,
    parse_manifest,
)

from triptych_image.errors import ImageMalformed
from triptych_image.offline.docker import docker_tags
from triptych_image.offline.documents import Documents, Found, blob_name, name_for
from triptych_image.pull.puller import EMPTY, Content

LIST = "index.json"
_DEPTH_MAX = 4
_PROBED_MAX = 8


def layout_images(documents: Documents, matcher: PlatformMatcher) -> Iterator[Found]:
    """The images of the layout that a platform runs.

    :raises ImageMalformed: for what does not fit together.
    """
    index = parse_manifest(documents.read(LIST, LIST), what=LIST)
    if not isinstance(index, Index):
        raise ImageMalformed(f"{LIST}: it is no index")
    tags = docker_tags(documents)
    found: dict[Digest, tuple[Found, dict[str, None]]] = {}
    for entry in _fitting(index.manifests or (), matcher):
        chosen = _descend(documents, entry, matcher, {}, _DEPTH_MAX)
        if chosen is None:
            continue
        image = _content(documents, *chosen, entry.digest)
        _, names = found.setdefault(entry.digest, (image, {}))
        texts = (*_texts(entry), *tags.get(image.content.config_digest, ()))
        names.update((name, None) for text in texts if (name := name_for(text, entry.digest)))
    for image, names in found.values():
        yield Found(image.content, image.target, tuple(names), image.blobs)


def _fitting(entries: Sequence[Descriptor], matcher: PlatformMatcher) -> list[Descriptor]:
    """Entries for the platform; of those that go by the same names the best, as in any index."""
    ranked: list[tuple[tuple[str, ...], int, Descriptor]] = []
    best: dict[tuple[str, ...], int] = {}
    for entry in entries:
        rank = matcher.rank(Platform.of(entry.platform)) if entry.platform is not None else 0
        if rank is not None:
            names = _texts(entry)
            ranked.append((names, rank, entry))
            best[names] = min(rank, best.get(names, rank))
    return [entry for names, rank, entry in ranked if rank == best[names]]


def _texts(entry: Descriptor) -> tuple[str, ...]:
    """What the annotations of an entry call it in full; a mere tag names no image."""
    annotations = entry.annotations or {}
    short = annotations.get(ANNOTATION_REF_NAME, "")
    texts = (annotations.get(ANNOTATION_IMAGE_NAME, ""), short if "/" in short or ":" in short else "")
    return tuple(filter(None, texts))


_Chosen = tuple[Manifest, Digest, dict[Digest, bytes]]


def _descend(
    documents: Documents,
    entry: Descriptor,
    matcher: PlatformMatcher,
    above: dict[Digest, bytes],
    depth: int,
) -> _Chosen | None:
    """The manifest for the platform at or below an entry, its digest, and all documents on the way."""
    raw = documents.blob(entry)
    document = parse_manifest(raw, media_type=entry.media_type, what=f"manifest {entry.digest}")
    passed = {**above, entry.digest: raw}
    if isinstance(document, Manifest):
        return document, entry.digest, passed
    if depth == 0:
        raise ImageMalformed(f"index {entry.digest}: nested too deep")
    entries = document.manifests or ()
    silent = [one for one in entries if one.platform is None][:_PROBED_MAX]
    for candidate in matcher.best(entries) or silent:
        # An archive need not hold every platform that its index names.
        if documents.archive.find(blob_name(candidate.digest)) is None:
            continue
        chosen = _descend(documents, candidate, matcher, passed, depth - 1)
        if chosen is not None and (candidate.platform is not None or _runs(documents, chosen[0], matcher)):
            return chosen
    return None


def _runs(documents: Documents, manifest: Manifest, matcher: PlatformMatcher) -> bool:
    """Whether the platform that a config names fits."""
    if not manifest.is_image:
        return False
    config = parse_image_config(documents.blob(manifest.config))
    return matcher.rank(Platform.normalized(config.os, config.architecture, config.variant)) is not None


def _content(
    documents: Documents, manifest: Manifest, digest: Digest, passed: dict[Digest, bytes], target: Digest
) -> Found:
    members = {
        layer.digest: member
        for layer in manifest.layers or ()
        if (member := documents.archive.find(blob_name(layer.digest))) is not None
    }
    raw = b"{}" if manifest.config.digest == EMPTY else documents.blob(manifest.config)
    blobs = {**passed, manifest.config.digest: raw}
    if not manifest.is_image:
        return Found(Content(manifest, digest, digest, blobs, None), target, (), members)
    config = parse_image_config(raw, what=f"config {manifest.config.digest}")
    return Found(Content(manifest, digest, manifest.config.digest, blobs, config), target, (), members)
