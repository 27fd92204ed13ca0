"""OCI artifacts: manifests whose blobs are files, to be mounted as volumes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from triptych_linux.process import shielded
from triptych_oci import Descriptor, Digest

from triptych_image.errors import DiskFull, ImageMalformed, LayerMismatch
from triptych_image.pull.flights import Flights, Slots, gather
from triptych_image.pull.partial import partial_file
from triptych_image.pull.progress import LayerProgress, Stage
from triptych_image.pull.reserve import check_reserve
from triptych_image.pull.source import BlobSource
from triptych_image.settings import Settings
from triptych_image.store import LayerRecord, Store, disk_error, layer_key

log = logging.getLogger(__name__)

TITLE = "org.opencontainers.image.title"
_NAME_MAX = 255
_PLACE_SECONDS = 60.0
_TITLE_MAX = 2048
"""The store's own directories come before it, and PATH_MAX is 4096."""


@dataclass(slots=True)
class _File:
    """A blob of an artifact.

    :ivar names: its paths in the artifact, mostly one.
    """

    descriptor: Descriptor
    partial: Path
    progress: LayerProgress
    names: list[str] = field(default_factory=list)


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
    too_long = len(os.fsencode(title)) > _TITLE_MAX or any(len(os.fsencode(p)) > _NAME_MAX for p in parts)
    if too_long or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ImageMalformed(
            f"artifact file {descriptor.digest}: the title {title[:200]!r} is no path to take"
        )
    return title


class ArtifactFetcher:
    """Fetches the files of artifacts into the store, all pulls of the daemon together.

    :param slots: how many files and layers may come at the same time.
    """

    def __init__(self, store: Store, slots: Slots, tasks: asyncio.TaskGroup, settings: Settings) -> None:
        self._store = store
        self._slots = slots
        self._settings = settings
        self._flights: Flights[str, None] = Flights(tasks)
        self._files: dict[str, list[_File]] = {}

    def reconfigure(self, settings: Settings) -> None:
        """Take changed settings."""
        self._settings = settings

    async def ensure(
        self, manifest: Digest, items: Sequence[Descriptor], source: BlobSource, shown: list[LayerProgress]
    ) -> None:
        """Have an artifact's files in the store as one layer. The caller holds its key.

        Who fetches it already is joined, as with layers.

        :param shown: gets the progress of the files, which all pulls of the artifact share.
        :raises ImageMalformed: when two files have one name, or one is the other's directory.
        :raises LayerMismatch: when a file has another digest than the manifest says.
        """
        key = artifact_key(manifest)
        files = self._files.setdefault(key, _files(self._store, manifest, items))
        shown[:] = [file.progress for file in files]
        try:
            await self._flights.insist(key, lambda: self._fetch(manifest, files, source))
        finally:
            if key not in self._flights:
                self._files.pop(key, None)

    async def _fetch(self, manifest: Digest, files: Sequence[_File], source: BlobSource) -> None:
        if artifact_key(manifest) in self._store.snapshot.layers:
            for file in files:
                file.progress.stage = Stage.PRESENT
            return
        try:
            async with contextlib.AsyncExitStack() as stack:
                for file in files:
                    await stack.enter_async_context(self._store.hold_partial(file.partial))
                await self._make(manifest, files, source)
        except DiskFull:
            # Nobody could go on from it: it is in the way itself.
            await asyncio.to_thread(_remove, files)
            raise

    async def _make(self, manifest: Digest, files: Sequence[_File], source: BlobSource) -> None:
        tree = self._store.paths.scratch()
        tape = tree.with_suffix(".tape")
        try:
            await gather([self._fetch_file(file, source) for file in files])
            # To its end also for a caller who is cancelled: what it makes after the drop would stay.
            directories = await shielded(asyncio.to_thread(_place, tree, tape, files), _PLACE_SECONDS)
            await self._store.add_layer(self._record(manifest, files, directories), tree, tape)
        except OSError as error:
            raise disk_error(error, f"write artifact {manifest}") from error
        finally:
            await self._store.drop(tree, tape)

    async def _fetch_file(self, file: _File, source: BlobSource) -> None:
        progress = file.progress
        progress.stage = Stage.WAITING
        async with self._slots:
            try:
                while not await self._attempt(file, source):
                    log.warning("file has a wrong digest, fetching again", extra={"file": progress.digest})
            except BaseException:
                progress.stage = Stage.FAILED
                raise
        progress.stage = Stage.DONE

    async def _attempt(self, file: _File, source: BlobSource) -> bool:
        """Bring a file to its end; returns whether it is what it should be.

        :raises LayerMismatch: when it is not, and nobody else may have it.
        """
        item, progress = file.descriptor, file.progress
        progress.begin()
        async with partial_file(
            file.partial, item, lambda: check_reserve(self._store, self._settings)
        ) as partial:
            resumed = partial.size > 0
            progress.count(partial.size)
            if partial.size < item.size:
                async with contextlib.aclosing(source.read(item, partial.size)) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        await partial.write(chunk)
                        progress.count(len(chunk))
                        progress.unpacked = progress.received
            if partial.is_whole():
                return True
        await asyncio.to_thread(file.partial.unlink, missing_ok=True)
        # What an earlier attempt left may be to blame; only fresh bytes speak against the host.
        if not resumed and not source.distrust(item):
            raise LayerMismatch(f"artifact file {item.digest}: what came has another digest")
        return False

    def _record(self, manifest: Digest, files: Sequence[_File], directories: int) -> LayerRecord:
        return LayerRecord(
            key=artifact_key(manifest),
            diff_id=f"triptych:artifact:{manifest}",
            size=sum(file.descriptor.size + 4095 & -4096 for file in files) + 4096 * directories,
            inodes=len(files) + directories + 1,
            complete=False,
            boot=self._store.boot,
            created_at=time.time_ns(),
        )


def _files(store: Store, manifest: Digest, items: Sequence[Descriptor]) -> list[_File]:
    """The blobs of an artifact, each once, with the names that they get."""
    files: dict[Digest, _File] = {}
    names: set[str] = set()
    for item in items:
        partial = store.paths.partial(item.digest, artifact_key(manifest))
        file = files.setdefault(item.digest, _File(item, partial, LayerProgress(item.digest, item.size)))
        if file.descriptor.size != item.size:
            raise ImageMalformed(f"artifact {manifest}: it gives file {item.digest} two sizes")
        name = file_name(item)
        if name in names:
            raise ImageMalformed(f"artifact {manifest}: two files have the title {name[:200]!r}")
        names.add(name)
        file.names.append(name)
    for name in names:
        if any(str(parent) in names for parent in PurePosixPath(name).parents):
            raise ImageMalformed(f"artifact {manifest}: the title {name[:200]!r} lies below another file")
    return list(files.values())


def _place(tree: Path, tape: Path, files: Sequence[_File]) -> int:
    """Put whole files where they belong. Blocking; returns the number of directories."""
    tape.touch(mode=0o600)
    names = [PurePosixPath(name) for file in files for name in file.names]
    directories = [tree, *sorted({tree / parent for name in names for parent in name.parents} - {tree})]
    for directory in directories:
        directory.mkdir()
        directory.chmod(0o755)  # whatever the umask
    for file in files:
        first, *more = (tree / name for name in file.names)
        file.partial.rename(first)
        first.chmod(0o644)
        for other in more:
            other.hardlink_to(first)
    return len(directories)


def _remove(files: Sequence[_File]) -> None:
    for file in files:
        file.partial.unlink(missing_ok=True)
