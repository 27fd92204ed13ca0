"""Fetching and unpacking one layer in one pass, once for all who want it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from triptych_errors import DeadlineExceeded
from triptych_oci import Descriptor, Digest
from triptych_service import span

from triptych_image.errors import DiskFull, LayerMalformed, LayerMismatch, LayerTooLarge
from triptych_image.faults import point
from triptych_image.layers.marks import set_opaque
from triptych_image.pull.flights import Flights, Slots
from triptych_image.pull.progress import LayerProgress, Stage
from triptych_image.pull.reserve import check_reserve
from triptych_image.pull.scratch import Scratch, scratch
from triptych_image.pull.source import BlobSource
from triptych_image.registry import SinkClosed
from triptych_image.settings import Settings
from triptych_image.store import LayerMarks, LayerRecord, Store, disk_error, layer_key
from triptych_image.unpack.pool import LayerLimits, UnpackWorkers
from triptych_image.unpack.reports import LayerJob, Unpacked

log = logging.getLogger(__name__)

_WATCH_SECONDS = 0.5
_SMALL = 1 << 20


@dataclass(frozen=True, slots=True)
class WantedLayer:
    """A layer of an image: its blob, and the digest of the archive inside."""

    descriptor: Descriptor
    diff_id: Digest

    @property
    def key(self) -> str:
        return layer_key(self.diff_id)


class LayerFetcher:
    """Fetches layers into the store, all pulls of the daemon together."""

    def __init__(
        self, store: Store, workers: UnpackWorkers, tasks: asyncio.TaskGroup, settings: Settings
    ) -> None:
        self._store = store
        self._workers = workers
        self._settings = settings
        self.slots = Slots(settings.pull.max_concurrent_layers)
        self._flights: Flights[str, None] = Flights(tasks)
        self._progress: dict[str, LayerProgress] = {}
        self.on_end: Callable[[LayerProgress, bool], None] = lambda layer, succeeded: None
        """Told of every layer that was fetched, or could not be."""

    def reconfigure(self, settings: Settings) -> None:
        """Take changed settings; what runs keeps the old ones."""
        self._settings = settings
        self.slots.resize(settings.pull.max_concurrent_layers)

    def progress(self, wanted: WantedLayer) -> LayerProgress:
        """The progress of a layer that `ensure` is or will be called for; shared by all pulls of it."""
        found = self._progress.get(wanted.diff_id)
        if found is None:
            found = LayerProgress(wanted.descriptor.digest, wanted.descriptor.size)
            self._progress[wanted.diff_id] = found
        return found

    async def ensure(self, wanted: WantedLayer, source: BlobSource) -> None:
        """Have a layer in the store. The caller holds its key.

        Who runs already is joined; if that fails, the layer is tried again from this caller's source.

        :raises TriptychError: what went wrong, naming the layer.
        """
        progress = self.progress(wanted)
        try:
            await self._flights.insist(wanted.diff_id, lambda: self._fetch(wanted, source, progress))
        finally:
            if wanted.diff_id not in self._flights:
                self._progress.pop(wanted.diff_id, None)

    async def _fetch(self, wanted: WantedLayer, source: BlobSource, progress: LayerProgress) -> None:
        if wanted.key in self._store.snapshot.layers:
            progress.stage = Stage.PRESENT
            return
        progress.stage = Stage.WAITING
        async with contextlib.AsyncExitStack() as slot:
            await slot.enter_async_context(self.slots)
            try:
                with span("pull.layer", digest=progress.digest, size=progress.total) as step:
                    await self._attempts(wanted, source, progress, slot)
                    step.set("unpacked", progress.unpacked)
            except BaseException:
                progress.stage = Stage.FAILED
                self.on_end(progress, False)
                raise
        progress.stage = Stage.DONE
        self.on_end(progress, True)

    async def _attempts(
        self,
        wanted: WantedLayer,
        source: BlobSource,
        progress: LayerProgress,
        slot: contextlib.AsyncExitStack,
    ) -> None:
        """Fetch, unpack and store.

        :param slot: given back when the layer is unpacked: what follows waits for the store, and needs none.
        """
        descriptor = wanted.descriptor
        partial = self._store.paths.partial(descriptor.digest, wanted.key)
        while True:
            keep = self._settings.pull.keep_compressed
            spool = keep or 0 < self._settings.pull.resume_bytes <= descriptor.size
            resumed = False
            try:
                progress.begin()
                async with scratch(self._store, descriptor.size, partial if spool else None) as place:
                    resumed = place.spooled > 0
                    unpacked = await self._unpack(wanted, source, progress, place)
                    await slot.aclose()
                    await self._take_over(wanted, unpacked, place)
                    if keep:
                        await self._store.adopt_blob(descriptor.digest, partial)
                    elif spool:
                        await asyncio.to_thread(partial.unlink, missing_ok=True)
            except LayerMismatch:
                await asyncio.to_thread(partial.unlink, missing_ok=True)
                # What an earlier run left may be to blame; only fresh bytes speak against the host.
                if not resumed and not source.distrust(descriptor):
                    raise
                log.warning("layer has a wrong digest, fetching again", extra={"layer": descriptor.digest})
            except (LayerMalformed, LayerTooLarge, DiskFull):
                await asyncio.to_thread(partial.unlink, missing_ok=True)
                raise
            else:
                return

    async def _unpack(
        self, wanted: WantedLayer, source: BlobSource, progress: LayerProgress, place: Scratch
    ) -> Unpacked:
        started = time.monotonic()
        point("layer-begin")
        descriptor = wanted.descriptor
        if descriptor.size <= _SMALL and place.spool_fd is None:
            unpacked = await self._small(descriptor, source, progress, place)
        else:
            algorithm = descriptor.digest.algorithm
            async with self._workers.unpack(
                place.tree, place.tape_fd, self._limits(), algorithm=algorithm, spool=place.spool_fd
            ) as job:
                progress.received = place.spooled
                unpacked = await self._transfer(descriptor, source, job, progress, place.spooled)
        point("layer-unpacked")
        _check(wanted, unpacked)
        progress.unpacked, progress.entries = unpacked.unpacked, unpacked.entries
        seconds = round(time.monotonic() - started, 3)
        log.debug("unpacked layer", extra={"layer": descriptor.digest, "seconds": seconds})
        return unpacked

    async def _take_over(self, wanted: WantedLayer, unpacked: Unpacked, place: Scratch) -> None:
        """Give an unpacked layer to the store."""
        if unpacked.opaque:
            try:
                await asyncio.to_thread(set_opaque, place.tree, unpacked.opaque)
            except OSError as error:
                what = f"layer {wanted.descriptor.digest}: mark a directory as opaque"
                raise disk_error(error, what) from error
        record = LayerRecord(
            key=wanted.key,
            diff_id=wanted.diff_id,
            size=unpacked.size + (unpacked.tape_bytes + 4095 & -4096),
            inodes=unpacked.inodes + 1,
            complete=unpacked.complete,
            boot=self._store.boot,
            created_at=time.time_ns(),
        )
        marks = LayerMarks(unpacked.implied, unpacked.opaque)
        await self._store.add_layer(record, place.tree, place.tape, marks)
        place.taken = True

    async def _small(
        self, descriptor: Descriptor, source: BlobSource, progress: LayerProgress, place: Scratch
    ) -> Unpacked:
        """A layer that fits into memory is proved before a byte of it is looked at, by one process less."""
        check_reserve(self._store, self._settings)
        data = await source.fetch(descriptor, progress.count)
        seconds = self._settings.pull.progress_timeout_seconds
        with span("pull.unpack"):
            try:
                async with asyncio.timeout(seconds):
                    return await self._workers.unpack_verified(
                        place.tree, place.tape_fd, self._limits(), descriptor.digest, data
                    )
            except TimeoutError:
                raise DeadlineExceeded(f"layer {descriptor.digest}: not unpacked in {seconds:g} s") from None

    async def _transfer(
        self, descriptor: Descriptor, source: BlobSource, job: LayerJob, progress: LayerProgress, offset: int
    ) -> Unpacked:
        """Feed the worker and wait for it, as long as something moves."""

        async def feed() -> None:
            try:
                if offset < descriptor.size:
                    progress.host = await source.copy(descriptor, job.sink, offset, progress.count)
            except SinkClosed:
                pass  # the worker says why
            finally:
                job.finish_input()

        feeding = asyncio.ensure_future(feed())
        ended = asyncio.ensure_future(job.failed())
        try:
            with span("pull.unpack"):
                await self._watch(feeding, ended, job, progress)
                if not feeding.done():
                    # It gave up before the end of the input; nobody waits for bytes that nobody reads.
                    feeding.cancel()
                    await asyncio.wait([feeding])
                else:
                    await feeding
                return await job.result(f"layer {descriptor.digest}")
        finally:
            for task in (feeding, ended):
                task.cancel()
            await asyncio.wait([feeding, ended])

    async def _watch(
        self,
        feeding: asyncio.Future[None],
        ended: asyncio.Future[None],
        job: LayerJob,
        progress: LayerProgress,
    ) -> None:
        """Wait for the worker's end, or the feed's failure.

        :raises DeadlineExceeded: when nothing moves.
        :raises DiskFull: when the reserve is touched.
        """
        seen, since = (-1, -1), time.monotonic()
        timeout = self._settings.pull.progress_timeout_seconds
        while True:
            waiting = {ended} if feeding.done() else {feeding, ended}
            done, _ = await asyncio.wait(
                waiting, timeout=_WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            progress.unpacked, progress.entries = job.progress.unpacked, job.progress.entries
            if ended in done or (feeding in done and feeding.exception() is not None):
                return
            now, at = (progress.received, progress.unpacked), time.monotonic()
            if now != seen:
                seen, since = now, at
            elif at - since > timeout:
                raise DeadlineExceeded(
                    f"layer {progress.digest}: nothing received nor unpacked for {timeout:g} s "
                    f"(at {progress.received} of {progress.total} bytes)"
                )
            check_reserve(self._store, self._settings)

    def _limits(self) -> LayerLimits:
        unpack = self._settings.unpack
        return LayerLimits(unpack.max_layer_bytes, unpack.max_layer_entries, unpack.max_ratio)


def _check(wanted: WantedLayer, unpacked: Unpacked) -> None:
    descriptor = wanted.descriptor
    if unpacked.packed != descriptor.size:
        raise LayerMismatch(
            f"layer {descriptor.digest}: {unpacked.packed} bytes, but the manifest says {descriptor.size}"
        )
    if unpacked.digest != descriptor.digest:
        raise LayerMismatch(f"layer {descriptor.digest}: what came has digest {unpacked.digest}")
    if unpacked.diff_id != wanted.diff_id:
        raise LayerMalformed(
            f"layer {descriptor.digest}: its archive has digest {unpacked.diff_id}, "
            f"but the image config says {wanted.diff_id}"
        )
