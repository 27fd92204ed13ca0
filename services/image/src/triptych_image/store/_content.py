"""Unpacked layers, blobs, and files to go on from."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from triptych_oci import Digest

from triptych_image.errors import ImageNotFound
from triptych_image.faults import point
from triptych_image.store import _changes, _recovery, _rows
from triptych_image.store._core import Core
from triptych_image.store._database import transaction
from triptych_image.store._disk import disk_error, size_on_disk
from triptych_image.store._trash import discard
from triptych_image.store.holds import Hold
from triptych_image.store.records import LayerMarks, LayerRecord

_NO_MARKS = LayerMarks()


class Content(Core):
    """What images are made of."""

    def hold(self) -> Hold:
        """Keep layers and blobs from being removed while something is made that will refer to them."""
        return Hold(self)

    async def add_layer(
        self, layer: LayerRecord, tree: Path, tape: Path, marks: LayerMarks = _NO_MARKS
    ) -> None:
        """Take over an unpacked layer and its tape from `tmp`.

        :raises FileExistsError: when it is there already.
        :raises DiskFull: when the disk does not take it; tree or tape may be gone then.
        """

        def work(connection: sqlite3.Connection) -> None:
            if layer.key in self.snapshot.layers:
                raise FileExistsError(f"layer {layer.key} is stored already")
            try:
                point("layer-before-rename")
                os.rename(tree, self.paths.layer(layer.key))
                point("layer-between-renames")
                os.rename(tape, self.paths.tape(layer.key))
                point("layer-before-row")
                with transaction(connection):
                    _rows.insert_layer(connection, layer, marks)
            except BaseException as error:
                # Without a row it would be in the way of the next attempt.
                discard(self.paths, self.paths.layer(layer.key))
                discard(self.paths, self.paths.tape(layer.key))
                if isinstance(error, OSError):
                    raise disk_error(error, f"store layer {layer.key}") from error
                raise
            self.snapshot = _changes.with_layers(self.snapshot, [layer])
            point("layer-after-row")

        try:
            await self._database.run(work)
        except BaseException:
            self.free_soon()
            raise

    async def layer_marks(self, key: str) -> LayerMarks:
        """The marks of a layer; none of one that is not there."""
        return await self._database.run(lambda connection: _rows.read_marks(connection, key))

    async def write_blobs(self, claimed: Sequence[Digest], blobs: Mapping[Digest, bytes]) -> None:
        """For `Hold`."""

        def work(_: sqlite3.Connection) -> None:
            self._blob_claims.update(claimed)
            for digest, data in blobs.items():
                path = self.paths.blob(digest)
                if path.exists():
                    continue
                scratch = self.paths.scratch()
                try:
                    scratch.write_bytes(data)
                    point("blob-before-rename")
                    os.rename(scratch, path)
                except OSError as error:
                    scratch.unlink(missing_ok=True)
                    raise disk_error(error, f"write blob {digest}") from error

        await self._database.run(work)

    async def adopt_blob(self, digest: Digest, path: Path) -> None:
        """Take over a verified file as a blob.

        :raises DiskFull: when the disk does not take it; the file stays.
        """
        try:
            await self._database.run(lambda _: os.rename(path, self.paths.blob(digest)))
        except OSError as error:
            raise disk_error(error, f"keep blob {digest}") from error

    def read_blob(self, digest: Digest) -> bytes:
        """A blob's bytes. Blocking, meant for manifests and configs.

        :raises ImageNotFound: when it is not there.
        """
        try:
            return self.paths.blob(digest).read_bytes()
        except FileNotFoundError:
            raise ImageNotFound(f"blob {digest} is not stored") from None

    def blob_size(self, digest: Digest) -> int:
        """Bytes on disk of a blob, 0 when it is not there."""
        return size_on_disk(self.paths.blob(digest))

    async def collect(self, *, all_unused: bool = False) -> tuple[int, int]:
        """Remove finished layers that nobody has and nobody is going to have.

        :param all_unused: also those young enough for a pull to go on with.
        :returns: their number and their bytes.
        """

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            candidates = set(self.snapshot.layers) if all_unused else set()
            if not _recovery.unreferenced(connection):
                return 0, 0
            with transaction(connection, durable=True):
                layers = self._collect(connection, candidates)
            size = sum(self.snapshot.layers[key].size for key in layers)
            self.snapshot = _changes.without_images(self.snapshot, set(), layers)
            self._discard(layers, set())
            return len(layers), size

        return await self._database.run(work, frees=True)

    @contextlib.asynccontextmanager
    async def hold_partial(self, path: Path) -> AsyncIterator[None]:
        """Keep a file to go on from, whether it is there or comes, while somebody writes it."""
        try:
            await self._database.run(lambda _: self._held_partials.add(path.name))
            yield
        finally:
            self._database.post(lambda: self._held_partials.discard(path.name))

    async def collect_partials(self, *, all_unused: bool = False) -> int:
        """Discard files that broken downloads left to go on from and that got too old for it.

        :param all_unused: also those young enough; never one that is held.
        :returns: their bytes on disk.
        """

        def work(_: sqlite3.Connection) -> int:
            size = 0
            newest = time.time_ns() - (0 if all_unused else int(self.keep_seconds * 1e9))
            with os.scandir(self.paths.partials) as entries:
                for entry in entries:
                    if entry.name in self._held_partials:
                        continue  # may be gone the next moment
                    info = entry.stat(follow_symlinks=False)
                    if info.st_mtime_ns <= newest:
                        size += info.st_blocks * 512
                        discard(self.paths, Path(entry.path))
            return size

        return await self._database.run(work)
