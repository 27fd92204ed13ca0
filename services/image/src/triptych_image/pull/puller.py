"""Pulling an image: resolve, check policy, fetch what is missing, commit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from triptych_oci import (
    Digest,
    ImageConfig,
    Manifest,
    Platform,
    PlatformMatcher,
    Reference,
    check_layer_count,
    host_platform,
    parse_image_config,
)
from triptych_service import span

from triptych_image.errors import ImageMalformed, ImageNotFound
from triptych_image.faults import point
from triptych_image.policy import PolicyEngine
from triptych_image.pull.artifacts import ArtifactFetcher, artifact_key
from triptych_image.pull.chains import Chain, finish_chain
from triptych_image.pull.flights import Flights, Joined, gather
from triptych_image.pull.layers import LayerFetcher, WantedLayer
from triptych_image.pull.progress import LayerProgress, PullBoard, PullRecord, Stage
from triptych_image.pull.source import BlobSource, RegistrySource
from triptych_image.registry import Credentials, RegistryClient, Repository, Resolved, Selected
from triptych_image.settings import Settings
from triptych_image.store import Hold, ImageKind, ImageRecord, NameRecord, Store
from triptych_image.unpack.pool import UnpackWorkers

log = logging.getLogger(__name__)

T = TypeVar("T")

EMPTY = Digest.of(b"{}")
_LAYERS_MAX = 490
"""overlayfs takes 500 lower directories."""
_SMALL_MAX = 4 << 20
_USER_MAX = 256
_ANNOTATIONS_MAX = 16 << 10
"""Characters. Neither the daemon's memory nor the list that the kubelet takes, 16 MiB, is for one image."""


@dataclass(frozen=True, slots=True)
class Content:
    """An image as its manifest has it, with the small blobs at hand.

    :param blobs: manifest, indexes above it and config, by digest.
    """

    manifest: Manifest
    manifest_digest: Digest
    config_digest: Digest
    blobs: dict[Digest, bytes]
    config: ImageConfig | None


class Puller:
    """Pulls images into the store."""

    def __init__(
        self,
        store: Store,
        registry: RegistryClient,
        policy: PolicyEngine,
        workers: UnpackWorkers,
        tasks: asyncio.TaskGroup,
        settings: Settings,
    ) -> None:
        self.board = PullBoard()
        self.layers = LayerFetcher(store, workers, tasks, settings)
        self._artifacts = ArtifactFetcher(store, self.layers.slots, tasks, settings)
        self.settings = settings
        self._store = store
        self._registry = registry
        self._policy = policy
        self._workers = workers
        self._flights: Flights[tuple[str, Credentials | None], str] = Flights(tasks)
        self.matcher = PlatformMatcher(
            Platform.parse(settings.pull.platform) if settings.pull.platform else host_platform()
        )

    def reconfigure(self, settings: Settings) -> None:
        """Take changed settings; what runs keeps the old ones."""
        self.settings = settings
        self.layers.reconfigure(settings)
        self._artifacts.reconfigure(settings)

    async def pull(self, reference: Reference, credentials: Credentials | None) -> str:
        """Pull an image, or join a pull of it by the same credentials; returns its ID.

        :raises TriptychError: of registry, policy, layers or disk; nothing of the image is listed then.
        """
        key = (str(reference), credentials)
        while True:
            try:
                image_id, _ = await self._flights.join(key, lambda: self._pull(reference, credentials))
            except Joined as joined:
                if isinstance(joined.error, InterruptedError):
                    continue  # its other callers left at this very moment
                raise joined.error from None
            return image_id

    async def _pull(self, reference: Reference, credentials: Credentials | None) -> str:
        record = self.board.begin(str(reference))
        started = time.monotonic()
        try:
            with span("pull", image=str(reference)):
                image_id = await self._resolve(reference, credentials, record)
        except BaseException as error:
            self.board.end(
                record, Stage.FAILED, error if isinstance(error, Exception) else InterruptedError()
            )
            raise
        record.image_id = image_id
        self.board.end(record, Stage.DONE)
        received = sum(layer.received for layer in record.layers)
        seconds = round(time.monotonic() - started, 3)
        log.info(
            "pulled image",
            extra={"image": str(reference), "id": image_id, "bytes": received, "seconds": seconds},
        )
        return image_id

    async def _resolve(
        self, reference: Reference, credentials: Credentials | None, record: PullRecord
    ) -> str:
        # A name that was pulled before most likely stands for the same: then a HEAD will do.
        known_name = reference.canonical in self._store.snapshot.names
        stored = self._small_blob if known_name else None
        async with self._registry.repository(reference, credentials, stored=stored) as repository:
            with span("pull.resolve"):
                looking = self._select(repository, record)
                top, selected = await (looking if known_name else self._warmed(looking))
            digests = tuple(dict.fromkeys((top.descriptor.digest, selected.manifest.descriptor.digest)))
            await self._policy.check(repository, digests)
            names = names_for(reference, top.descriptor.digest)
            known = self._known(selected)
            if known is not None and await self._rename(known, names, top.descriptor.digest):
                return known.id
            fetching = self._content(repository, selected)
            content = await (self._warmed(fetching) if selected.document.is_image else fetching)
            source = RegistrySource(repository)
            return await self.store_image(content, names, top.descriptor.digest, source, record)

    async def _select(self, repository: Repository, record: PullRecord) -> tuple[Resolved, Selected]:
        top = await repository.resolve()
        record.host = top.host
        return top, await repository.select(top, self.matcher)

    def _small_blob(self, digest: Digest) -> bytes | None:
        """A manifest or config that is stored; nothing of it is claimed, so it may be removed meanwhile."""
        if not 0 < self._store.blob_size(digest) <= _SMALL_MAX:
            return None
        try:
            return self._store.read_blob(digest)
        except ImageNotFound:
            return None

    def _known(self, selected: Selected) -> ImageRecord | None:
        """The image, if it is whole already and came by the same manifest."""
        digest = selected.manifest.descriptor.digest
        document = selected.document
        image_id = document.config.digest if document.is_image else digest
        found = self._store.snapshot.images.get(image_id)
        return found if found is not None and digest in found.blobs else None

    async def _rename(self, image: ImageRecord, names: list[str], target: Digest) -> bool:
        """Point names at an image, most often they do already; False when it was removed meanwhile."""
        wanted = [NameRecord(name, image.id, target) for name in names]
        known = self._store.snapshot.names
        if any(known.get(name.reference) != name for name in wanted):
            try:
                await self._store.add_names(wanted)
            except ImageNotFound:
                return False
        return True

    async def _warmed(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what comes before layers; the process that unpacks them starts meanwhile."""
        found: list[T] = []

        async def run() -> None:
            found.append(await work)

        await gather([run(), self._workers.warm()])
        return found[0]

    async def _content(self, repository: Repository, selected: Selected) -> Content:
        manifest = selected.document
        digest = selected.manifest.descriptor.digest
        blobs = {item.descriptor.digest: item.raw for item in (*selected.chain, selected.manifest)}
        if not manifest.is_image:
            # Mostly "{}", which needs no asking; kept so that the artifact can be pushed again.
            empty = manifest.config.digest == EMPTY
            blobs[manifest.config.digest] = b"{}" if empty else await repository.fetch_blob(manifest.config)
            return Content(manifest, digest, digest, blobs, None)
        raw = await repository.fetch_blob(manifest.config)
        blobs[manifest.config.digest] = raw
        return Content(manifest, digest, manifest.config.digest, blobs, parse_image_config(raw))

    async def store_image(
        self, content: Content, names: list[str], target: Digest, source: BlobSource, record: PullRecord
    ) -> str:
        """Fetch the layers of an image that are missing, and commit it under names.

        :param target: digest that the names stand for.
        """
        with self._store.importing() as hold:
            keep = self.settings.pull.keep_compressed
            kept = [item.digest for item in content.manifest.layers or ()] if keep else []
            await hold.blobs(content.blobs, kept)
            if content.config is None:
                chain = await self._artifact(content, source, record, hold)
                image_id, kind, user = content.manifest_digest, ImageKind.ARTIFACT, ""
            else:
                chain = await self._image(content, content.config, source, record, hold)
                image_id, kind, user = content.config_digest, ImageKind.IMAGE, content.config.settings.user
            record.stage = Stage.COMMITTING
            point("pull-before-commit")
            kept = [digest for digest in kept if self._store.blob_size(digest)]
            blobs = tuple(sorted({*content.blobs, *kept}))
            image = ImageRecord(
                id=image_id,
                kind=kind,
                manifest=content.manifest_digest,
                config=content.config_digest,
                layers=chain.layers,
                blobs=blobs,
                blob_bytes=sum(self._store.blob_size(digest) for digest in blobs),
                user=user[:_USER_MAX],
                annotations=_short(content.manifest.annotations or {}),
                root_mode=chain.root_mode,
                root_uid=chain.root_uid,
                root_gid=chain.root_gid,
                source=source.reference,
                created_at=time.time_ns(),
            )
            with span("pull.commit"):
                records = [NameRecord(name, image_id, target) for name in names]
                await self._store.commit_image(image, records)
        return image_id

    async def _image(
        self, content: Content, config: ImageConfig, source: BlobSource, record: PullRecord, hold: Hold
    ) -> Chain:
        what = f"image {content.config_digest}"
        check_layer_count(content.manifest, config, what)
        wanted = [
            WantedLayer(descriptor, diff_id)
            for descriptor, diff_id in zip(content.manifest.layers or (), config.diff_ids, strict=True)
        ]
        if len(wanted) > _LAYERS_MAX:
            raise ImageMalformed(
                f"{what}: {len(wanted)} layers, more than the {_LAYERS_MAX} that can be mounted"
            )
        if not wanted:
            raise ImageMalformed(f"{what}: it has no layers")
        present = await hold.layers(dict.fromkeys(layer.key for layer in wanted))
        missing = list({layer.diff_id: layer for layer in wanted if layer.key not in present}.values())
        shown = {layer.diff_id: layer for layer in wanted}
        record.layers = [
            LayerProgress(layer.descriptor.digest, layer.descriptor.size, Stage.PRESENT)
            if layer.key in present
            else self.layers.progress(layer)
            for layer in shown.values()
        ]
        record.stage = Stage.FETCHING
        with span("pull.layers", layers=len(missing)):
            await gather([self.layers.ensure(layer, source) for layer in missing])
        return await finish_chain(self._store, hold, [layer.key for layer in wanted])

    async def _artifact(self, content: Content, source: BlobSource, record: PullRecord, hold: Hold) -> Chain:
        key = artifact_key(content.manifest_digest)
        record.stage = Stage.FETCHING
        if not await hold.layers([key]):
            files = content.manifest.layers or ()
            await self._artifacts.ensure(content.manifest_digest, files, source, record.layers)
        return Chain((key,), 0o755, 0, 0)


def _short(annotations: Mapping[str, str]) -> Mapping[str, str]:
    """Annotations if they are few enough to be known and shown, else none."""
    size = sum(len(key) + len(value) for key, value in annotations.items())
    return annotations if size <= _ANNOTATIONS_MAX else {}


def names_for(reference: Reference, top: Digest) -> list[str]:
    """The names that a pull gives: "name:tag" unless it was by digest, and "name@digest"."""
    by_digest = f"{reference.name}@{top}"
    return [by_digest] if reference.digest else [reference.canonical, by_digest]
