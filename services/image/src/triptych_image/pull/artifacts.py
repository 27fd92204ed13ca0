"""OCI artifacts: manifests whose blobs are files, to be mounted as volumes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from triptych_oci import Descriptor, Digest

from triptych_image.errors import ImageMalformed, LayerMismatch
from triptych_image.pull.progress import LayerProgress, Stage
from triptych_image.pull.source import BlobSource
from triptych_image.settings import Settings
from triptych_image.store import LayerRecord, Store, disk_error, layer_key

TITLE = "org.opencontainers.image.title"
_NAME_MAX = 255


def artifact_key(manifest: Digest) -> str:
    """The layer that an artifact's files are in."""
    return layer_key(f"triptych:artifact:{manifest}")


def file_name(descriptor: Descriptor) -> str:
    """Where a blob of an artifact goes: its title, else its digest.

    :raises ImageMalformed: for a title that leads out of the directory.
    """
    title = (descriptor.annotations or {}).get(TITLE, "")
    if not title:
        return descriptor.digest.hex
    parts = title.split("/")
    if any(part in ("", ".", "..") or "\0" in part or len(os.fsencode(part)) > _NAME_MAX for part in parts):
        raise ImageMalformed(
            f"artifact file {descriptor.digest}: the title {title[:200]!r} is no path to take"
        )
    return title


class ArtifactFetcher:
    """Fetches the files of artifacts into the store."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def reconfigure(self, settings: Settings) -> None:
        """Take changed settings."""
        self._settings = settings

    async def fetch(
        self,
        manifest: Digest,
        files: Sequence[Descriptor],
        source: BlobSource,
        progress: Sequence[LayerProgress],
    ) -> None:
        """Fetch every file and add them as one layer.

        :raises ImageMalformed: when two files have one name, or one is the other's directory.
        :raises LayerMismatch: when a file has another digest than the manifest says.
        """
        names = [file_name(item) for item in files]
        if len(set(names)) != len(names):
            raise ImageMalformed(f"artifact {manifest}: two files have the same title")
        tree = self._store.paths.scratch()
        tape = tree.with_suffix(".tape")
        try:
            await asyncio.to_thread(_prepare, tree, tape, names)
            for name, item, shown in zip(names, files, progress, strict=True):
                shown.stage = Stage.FETCHING
                await self._fetch_file(tree / name, item, source, shown)
                shown.stage = Stage.DONE
            await self._store.add_layer(self._record(manifest, tree, files), tree, tape)
        except FileExistsError:
            pass  # another pull of the same artifact was quicker
        except OSError as error:
            raise disk_error(error, f"write artifact {manifest}") from error
        finally:
            await self._store.drop(tree, tape)

    async def _fetch_file(
        self, path: Path, item: Descriptor, source: BlobSource, progress: LayerProgress
    ) -> None:
        while True:
            progress.received = 0
            hasher = item.digest.hasher()
            async with contextlib.aclosing(source.read(item)) as chunks:  # type: ignore[type-var]
                fd = await asyncio.to_thread(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                try:
                    async for chunk in chunks:
                        hasher.update(chunk)
                        await asyncio.to_thread(_write, fd, chunk)
                        progress.received += len(chunk)
                        progress.unpacked = progress.received
                finally:
                    os.close(fd)
            if hasher.hexdigest() == item.digest.hex and progress.received == item.size:
                return
            if not source.distrust(item):
                raise LayerMismatch(f"artifact file {item.digest}: what came has another digest")

    def _record(self, manifest: Digest, tree: Path, files: Sequence[Descriptor]) -> LayerRecord:
        inodes = sum(1 for _ in tree.rglob("*")) + 2
        return LayerRecord(
            key=artifact_key(manifest),
            diff_id=f"triptych:artifact:{manifest}",
            size=sum(item.size + 4095 & -4096 for item in files) + 4096,
            inodes=inodes,
            complete=False,
            implied=(),
            opaque=(),
            boot=self._store.boot,
            created_at=time.time_ns(),
        )


def _prepare(tree: Path, tape: Path, names: Sequence[str]) -> None:
    tree.mkdir(mode=0o755)
    tape.touch(mode=0o600)
    for name in names:
        parent = tree / os.path.dirname(name)
        try:
            parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        except FileExistsError:
            raise ImageMalformed(f"artifact: the title {name!r} lies below another file") from None


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
