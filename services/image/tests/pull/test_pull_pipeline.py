"""Pulls through a real registry client, real workers and a real store, in one process."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from triptych_errors import DeadlineExceeded, TriptychError
from triptych_image.errors import DiskFull, ImageMalformed, LayerMalformed, LayerMismatch
from triptych_image.offline.verify import verify
from triptych_image.policy import PolicyEngine
from triptych_image.pull import artifacts, chains
from triptych_image.pull.artifacts import artifact_key
from triptych_image.pull.partial import partial_file
from triptych_image.pull.puller import Puller
from triptych_image.pull.scratch import Scratch
from triptych_image.registry import ContentNotFound, RegistryClient, Repository, Resolved
from triptych_image.settings import Settings
from triptych_image.store import ImageKind, LayerRecord, NameRecord, Store, layer_key
from triptych_image.unpack.pool import UnpackWorkers
from triptych_oci import Descriptor, Digest, Reference

pytestmark = pytest.mark.integration


@pytest.fixture
async def make_puller(store: Store, workers: UnpackWorkers) -> AsyncIterator[Callable[..., Puller]]:
    async with asyncio.TaskGroup() as tasks, RegistryClient(Settings().registry) as client:

        def make(settings: Settings | None = None) -> Puller:
            return Puller(
                store, client, PolicyEngine(Settings().policy), workers, tasks, settings or Settings()
            )

        yield make


@pytest.fixture
def puller(make_puller: Callable[..., Puller]) -> Puller:
    return make_puller()


def with_pull(**changes: Any) -> Settings:
    return msgspec.structs.replace(Settings(), pull=msgspec.structs.replace(Settings().pull, **changes))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def spooled(store: Store) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(store.paths.partials))


def with_diff_ids(image: Any, diff_ids: Any) -> Any:
    """The same blobs under a config that says something else of what is in them."""
    document = json.loads(image.config)
    document["rootfs"]["diff_ids"] = diff_ids
    config = json.dumps(document).encode()
    changed = replace(image, config=config)
    manifest = json.loads(image.manifest)
    manifest["config"] |= {"digest": changed.id, "size": len(config)}
    return replace(
        changed, manifest=json.dumps(manifest).encode(), blobs={**image.blobs, changed.id: config}
    )


def spool_of(store: Store, image: Any) -> Path:
    """Where the packed bytes of an image's first layer are while they come."""
    (blob, *_), (diff_id, *_) = (
        json.loads(image.manifest)["layers"],
        json.loads(image.config)["rootfs"]["diff_ids"],
    )
    return store.paths.partial(Digest(blob["digest"]), layer_key(diff_id))


async def pull(puller: Puller, name: str) -> str:
    return await puller.pull(Reference.parse(name), None)


def blobs(registry: Any) -> list[str]:
    return [request for request in registry.requests if "/blobs/" in request]


def empty(store: Store) -> bool:
    paths = store.paths
    places = (paths.layers, paths.tapes, paths.blobs / "sha256", paths.tmp)
    return not any(os.listdir(place) for place in places)


async def whole(store: Store, workers: UnpackWorkers) -> bool:
    found = [item async for item in verify(store, workers, store.snapshot.images.values())]
    assert all(item.ok and not item.problem for item in found), found
    return bool(found)


async def test_an_image_is_pulled_and_known_by_its_names(
    puller: Puller, store: Store, workers: UnpackWorkers, registry: Any, make_image: Any, layer_of: Any
) -> None:
    image = make_image(
        layer_of({"a": b"1", "d/b": b"2"}), layer_of({"d/b": b"3"}), config={"User": "1001:5"}
    )
    name = registry.add("x/y:1", image)
    assert await pull(puller, name) == image.id
    found = store.find(f"{registry.address}/x/y:1")
    assert found is not None and found.id == image.id and found.user == "1001:5"
    assert store.snapshot.digests[image.id] == (f"{registry.address}/x/y@{image.digest}",)
    top, bottom = (store.paths.layer(key) for key in reversed(found.layers))
    assert (top / "d/b").read_bytes() == b"3"
    assert (bottom / "a").read_bytes() == b"1"
    assert await whole(store, workers)
    before = len(blobs(registry))
    assert await pull(puller, name) == image.id
    assert len(blobs(registry)) == before


async def test_of_an_image_that_says_much_of_itself_little_is_kept_in_memory(
    puller: Puller, store: Store, workers: UnpackWorkers, registry: Any, make_image: Any, layer_of: Any
) -> None:
    config, notes = {"User": "u" * 100_000}, {str(number): "" for number in range(10_000)}
    image = make_image(layer_of({"a": b"1"}), config=config, annotations=notes)
    await pull(puller, registry.add("x:1", image))
    found = store.snapshot.images[image.id]
    assert (len(found.user), found.annotations) == (256, {})
    assert await whole(store, workers)


async def test_by_digest_there_is_no_tag(
    puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    image = make_image(layer_of({"a": b"1"}))
    registry.add("x:1", image)
    await pull(puller, f"{registry.address}/x:1@{image.digest}")
    assert store.snapshot.tags == {}
    assert list(store.snapshot.names) == [f"{registry.address}/x@{image.digest}"]


async def test_the_same_layer_is_fetched_once_for_images_that_share_it(
    puller: Puller, registry: Any, make_image: Any, layer_of: Any
) -> None:
    shared = layer_of({"big": os.urandom(300_000)})
    images = [make_image(shared, layer_of({"own": b"%d" % number})) for number in range(6)]
    registry.rate = 400_000
    names = [registry.add(f"x{number}:1", image) for number, image in enumerate(images)]
    found = await asyncio.gather(*(pull(puller, name) for name in names for _ in range(2)))
    assert set(found) == {image.id for image in images}
    digest = json.loads(images[0].manifest)["layers"][0]["digest"]
    assert sum(digest in request for request in blobs(registry)) == 1


async def test_the_next_layer_comes_while_the_store_takes_one(
    make_puller: Callable[..., Puller], store: Store, registry: Any, make_image: Any, layer_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    puller = make_puller(with_pull(max_concurrent_layers=1))
    add_layer, unpacked, both = store.add_layer, list[str](), asyncio.Event()

    async def take(record: LayerRecord, *places: Any) -> None:
        unpacked.append(record.key)
        if len(unpacked) == 2:
            both.set()
        async with asyncio.timeout(60):
            await both.wait()
        await add_layer(record, *places)

    monkeypatch.setattr(store, "add_layer", take)
    image = make_image(layer_of({"a": b"1"}), layer_of({"b": b"2"}))
    assert await pull(puller, registry.add("x:1", image)) == image.id


async def test_the_unpack_process_starts_while_an_unknown_name_is_looked_up(
    puller: Puller, workers: UnpackWorkers, registry: Any, make_image: Any, layer_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    warm, resolve = workers.warm, Repository.resolve
    warmed = asyncio.Event()

    async def warm_up() -> None:
        await warm()
        warmed.set()

    async def resolve_then(repository: Repository) -> Resolved:
        async with asyncio.timeout(60):
            await warmed.wait()
        return await resolve(repository)

    monkeypatch.setattr(workers, "warm", warm_up)
    monkeypatch.setattr(Repository, "resolve", resolve_then)
    name = registry.add("x:1", make_image(layer_of({"a": b"1"})))
    await pull(puller, name)
    monkeypatch.setattr(Repository, "resolve", resolve)
    warmed.clear()
    await pull(puller, name)
    assert not warmed.is_set()


async def test_a_pull_stops_with_its_last_caller_and_leaves_nothing_half_made(
    puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    name = registry.add("x:1", make_image(layer_of({"big": os.urandom(2_000_000)})))
    registry.rate = 200_000
    one, two = (asyncio.create_task(pull(puller, name)) for _ in range(2))
    await until(lambda: len(os.listdir(store.paths.tmp)) > 0)
    one.cancel()
    await asyncio.wait([one])
    assert [record.reference for record in puller.board] == [name]
    two.cancel()
    await until(lambda: empty(store))
    assert list(puller.board) == []


async def test_small_layers_show_their_progress(
    puller: Puller, registry: Any, make_image: Any, layer_of: Any
) -> None:
    image = make_image(layer_of({"small": os.urandom(400_000)}))
    registry.rate = 100_000
    task = asyncio.create_task(pull(puller, registry.add("x:1", image)))
    await until(
        lambda: any(0 < layer.received < layer.total for one in puller.board for layer in one.layers)
    )
    registry.rate = 0
    task.cancel()
    await asyncio.wait([task])


async def test_a_broken_connection_is_continued_by_range(
    puller: Puller, store: Store, workers: UnpackWorkers, registry: Any, make_image: Any, layer_of: Any
) -> None:
    image = make_image(layer_of({"big": os.urandom(3_000_000)}))
    name = registry.add("x:1", image)
    digest = json.loads(image.manifest)["layers"][0]["digest"]
    registry.stop_after[digest] = 1_000_000
    await pull(puller, name)
    ranges = [request.partition("bytes=")[2] for request in blobs(registry) if digest in request]
    assert len(ranges) == 2 and int(ranges[1].rstrip("-").partition("-")[0]) > 0
    assert await whole(store, workers)


@pytest.mark.parametrize("left", [1_000_000, 0, 10_000_000])
async def test_a_pull_goes_on_from_what_a_killed_one_left(
    left: int,
    make_puller: Callable[..., Puller],
    store: Store,
    workers: UnpackWorkers,
    registry: Any,
    make_image: Any,
    layer_of: Any,
) -> None:
    puller = make_puller(with_pull(resume_bytes=1))
    image = make_image(layer_of({"big": os.urandom(3_000_000)}))
    name = registry.add("x:1", image)
    digest = json.loads(image.manifest)["layers"][0]["digest"]
    partial = spool_of(store, image)
    partial.write_bytes(image.blobs[digest][:left].ljust(left, b"x"))
    await pull(puller, name)
    (wanted,) = [request for request in blobs(registry) if digest in request]
    assert (f"bytes={left}-" in wanted) == (0 < left < 3_000_000)
    assert not partial.exists()
    assert await whole(store, workers)


async def test_what_was_left_and_is_wrong_is_fetched_again(
    make_puller: Callable[..., Puller], store: Store, workers: UnpackWorkers, registry: Any, make_image: Any,
    layer_of: Any,
) -> None:  # fmt: skip
    puller = make_puller(with_pull(resume_bytes=1))
    image = make_image(layer_of({"big": os.urandom(500_000)}), pack=False)
    name = registry.add("x:1", image)
    digest = json.loads(image.manifest)["layers"][0]["digest"]
    right = image.blobs[digest]
    spool_of(store, image).write_bytes(right[:2000] + b"wrong" + right[2005:9000])
    await pull(puller, name)
    assert await whole(store, workers)


async def test_a_stopped_pull_leaves_its_bytes_for_the_next(
    make_puller: Callable[..., Puller], store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    puller = make_puller(with_pull(resume_bytes=1))
    image = make_image(layer_of({"big": os.urandom(1_000_000)}))
    name = registry.add("x:1", image)
    registry.rate = 100_000
    task = asyncio.create_task(pull(puller, name))
    await until(lambda: spooled(store) > 20_000)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    registry.rate = 0
    await pull(puller, name)
    digest = json.loads(image.manifest)["layers"][0]["digest"]
    last = [request for request in blobs(registry) if digest in request][-1]
    assert int(last.partition("bytes=")[2].partition("-")[0]) > 10_000


async def test_packed_layers_are_kept_where_that_is_wanted(
    make_puller: Callable[..., Puller], store: Store, workers: UnpackWorkers, registry: Any, make_image: Any,
    layer_of: Any,
) -> None:  # fmt: skip
    puller = make_puller(with_pull(keep_compressed=True))
    shared = layer_of({"a": os.urandom(5000)})
    image, other = make_image(shared, layer_of({"big": os.urandom(2_000_000)})), make_image(shared)
    await pull(puller, registry.add("x:1", image))
    await pull(puller, registry.add("y:1", other))
    assert {f"sha256:{name}" for name in os.listdir(store.paths.blobs / "sha256")} == {
        *image.blobs, *other.blobs, image.digest, other.digest
    }  # fmt: skip
    assert await whole(store, workers)
    assert os.listdir(store.paths.partials) == []
    assert store.snapshot.image_bytes(store.snapshot.images[image.id]) > 4_000_000
    await store.remove_images([image.id, other.id])
    assert empty(store)


async def test_a_full_disk_that_does_not_take_a_packed_layer_is_told(
    make_puller: Callable[..., Puller], store: Store, registry: Any, make_image: Any, layer_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rename, blobs = os.rename, store.paths.blobs

    def full(source: Any, target: Any) -> None:
        if Path(source).parent == store.paths.partials and blobs in Path(target).parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    name = registry.add("x:1", make_image(layer_of({"a": b"1"})))
    with pytest.raises(DiskFull, match="keep blob sha256:.*No space left"):
        await pull(make_puller(with_pull(keep_compressed=True)), name)
    assert spooled(store) == 0 and store.snapshot.images == {}


async def test_a_pull_that_is_stopped_while_its_files_are_made_leaves_none(
    puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    began, stopped, opened = threading.Event(), threading.Event(), list[Scratch]()
    make = Scratch.open

    def slow(self: Scratch, *args: Any) -> None:
        began.set()
        assert stopped.wait(60)
        make(self, *args)
        opened.append(self)

    monkeypatch.setattr(Scratch, "open", slow)
    task = asyncio.create_task(pull(puller, registry.add("x:1", make_image(layer_of({"a": b"1"})))))
    await until(began.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stopped.set()
    await until(lambda: bool(opened) and empty(store))


async def test_an_image_that_lies_about_a_blob_does_not_break_the_pull_of_a_good_one(
    make_puller: Callable[..., Puller], store: Store, workers: UnpackWorkers, registry: Any, make_image: Any,
    layer_of: Any,
) -> None:  # fmt: skip
    puller = make_puller(with_pull(keep_compressed=True))
    good = make_image(layer_of({"big": os.urandom(1_000_000)}))
    evil = with_diff_ids(good, ["sha256:" + "0" * 64])
    names = registry.add("good:1", good), registry.add("evil:1", evil)
    registry.rate = 500_000
    pulling = asyncio.create_task(pull(puller, names[0]))
    await until(lambda: spooled(store) > 100_000)
    with pytest.raises(LayerMalformed, match="image config says"):
        await pull(puller, names[1])
    assert await pulling == good.id
    blob = Digest(json.loads(good.manifest)["layers"][0]["digest"])
    assert store.read_blob(blob) == good.blobs[blob]
    assert os.listdir(store.paths.partials) == []
    assert await whole(store, workers)


async def test_a_pull_that_meets_the_removal_of_its_image_commits_what_is_there(
    puller: Puller, store: Store, workers: UnpackWorkers, registry: Any, make_image: Any, layer_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    layer = layer_of({"a": b"1"})
    image, rebuilt = make_image(layer), make_image(layer, annotations={"again": "1"})
    assert (image.id, image.digest == rebuilt.digest) == (rebuilt.id, False)
    await pull(puller, registry.add("x:1", image))
    synced = store.sync

    async def sync() -> None:
        await synced()
        await store.remove_images([image.id])

    monkeypatch.setattr(store, "sync", sync)
    await pull(puller, registry.add("x:1", rebuilt))
    assert set(store.snapshot.images[image.id].blobs) == {image.id, rebuilt.digest}
    assert await whole(store, workers)


async def test_a_pull_that_meets_the_removal_of_a_manifest_it_was_about_to_read_fetches_it(
    puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    image = make_image(layer_of({"a": b"1"}))
    name = registry.add("x:1", image)
    await pull(puller, name)
    blob_size = store.blob_size

    def then_removed(digest: Digest) -> int:
        size = blob_size(digest)
        store.paths.blob(digest).unlink(missing_ok=True)
        return size

    monkeypatch.setattr(store, "blob_size", then_removed)
    registry.requests.clear()
    assert await pull(puller, name) == image.id
    assert [request.split()[0] for request in registry.requests] == ["HEAD", "GET"]


async def test_a_pull_by_another_name_that_meets_the_removal_of_its_image_fetches_it(
    puller: Puller, store: Store, workers: UnpackWorkers, registry: Any, make_image: Any, layer_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    image = make_image(layer_of({"a": b"1"}))
    await pull(puller, registry.add("x:1", image))
    add_names = store.add_names

    async def removed_first(names: Sequence[NameRecord]) -> None:
        await store.remove_images([image.id])
        await add_names(names)

    monkeypatch.setattr(store, "add_names", removed_first)
    name = registry.add("x:2", image)
    assert await pull(puller, name) == image.id
    found = store.find(name)
    assert found is not None and found.id == image.id
    assert await whole(store, workers)


async def test_the_event_loop_never_waits_for_the_disk(
    puller: Puller,
    store: Store,
    registry: Any,
    make_image: Any,
    layer_of: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = make_image(
        layer_of({f"d{n % 50}/{n}": b"x" * 4000 for n in range(4000)}),
        layer_of({"big": os.urandom(40_000_000)}),
        *(layer_of({f"small{n}": b"%d" % n}) for n in range(10)),
    )
    name = registry.add("x:1", image)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.3
    slow: list[str] = []
    for _ in range(3):
        # Other processes may keep this one from running for a while, but not each time.
        caplog.clear()
        with caplog.at_level("WARNING", logger="asyncio"):
            await pull(puller, name)
        slow = [record.message for record in caplog.records if record.name == "asyncio"]
        if not slow:
            break
        await store.remove_images([image.id])
    loop.set_debug(False)
    assert slow == []


async def test_a_wrong_digest_is_refused_and_nothing_is_listed(
    puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    image = make_image(layer_of({"a": b"1" * 5000}))
    digest = json.loads(image.manifest)["layers"][0]["digest"]
    image.blobs[digest] = gzip.compress(layer_of({"a": b"2" * 5000}), 1, mtime=0)[: len(image.blobs[digest])]
    image.blobs[digest] = image.blobs[digest].ljust(len(image.blobs[digest]), b"\0")
    name = registry.add("x:1", image)
    with pytest.raises((LayerMismatch, LayerMalformed, TriptychError)):
        await pull(puller, name)
    assert store.snapshot.images == {} and store.snapshot.layers == {}
    await until(lambda: not os.listdir(store.paths.layers))


@pytest.mark.parametrize("size", [5000, 2_000_000])
async def test_a_layer_that_is_no_archive_is_named(
    size: int, puller: Puller, registry: Any, make_image: Any, layer_of: Any
) -> None:
    image = make_image(layer_of({"a": b"1"}), b"x" * 512 + os.urandom(size), pack=False)
    digest = json.loads(image.manifest)["layers"][1]["digest"]
    with pytest.raises(LayerMalformed, match=f"^unpack layer {digest}: a tar header"):
        await pull(puller, registry.add("x:1", image))


async def test_a_layer_that_is_not_what_the_config_says_is_refused(
    puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    image = make_image(layer_of({"a": b"1"}))
    image = with_diff_ids(image, ["sha256:" + "0" * 64])
    with pytest.raises(LayerMalformed, match="image config says sha256:0000"):
        await pull(puller, registry.add("x:1", image))
    assert store.snapshot.layers == {}


@pytest.mark.parametrize("diff_ids", [[], ["sha256:" + "0" * 64] * 2, ["nonsense"], None, {"a": 1}], ids=str)
async def test_configs_that_do_not_fit_are_refused(
    diff_ids: Any, puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    image = make_image(layer_of({"a": b"1"}))
    image = with_diff_ids(image, diff_ids)
    with pytest.raises(TriptychError):
        await pull(puller, registry.add("x:1", image))
    await until(lambda: empty(store))


async def test_thousands_of_layers_are_refused(
    puller: Puller, registry: Any, make_image: Any, layer_of: Any
) -> None:
    layer = layer_of({})
    for count in (600, 2500):
        with pytest.raises(TriptychError, match="layers, more than"):
            await pull(puller, registry.add("x:1", make_image(*[layer] * count)))


async def test_the_same_layer_many_times_is_mounted_once(
    puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    one, two = layer_of({"a": b"1"}), layer_of({"a": b"2"})
    image = make_image(one, two, one)
    await pull(puller, registry.add("x:1", image))
    found = store.snapshot.images[image.id]
    assert len(found.layers) == 2
    assert (store.paths.layer(found.layers[-1]) / "a").read_bytes() == b"1"


async def test_more_implied_directories_than_can_be_looked_up(
    puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any, monkeypatch: Any
) -> None:
    """Each is looked up in every layer, and a stranger says how many there are of both."""
    layers = [layer_of({f"{number}/a/b/c": b"x"}) for number in range(5)]
    # Of each layer the root and three directories, of 0, 0, 1 and 2 slashes, in five layers.
    cost = 5 * 5 * (4 * chains._LOOK + 3)
    monkeypatch.setattr(chains, "_LOOKS_MAX", cost - 1)
    with pytest.raises(ImageMalformed, match="too many directories"):
        await pull(puller, registry.add("x:1", make_image(*layers)))
    assert store.snapshot.images == {}
    monkeypatch.setattr(chains, "_LOOKS_MAX", cost)
    await pull(puller, registry.add("x:1", make_image(*layers)))


async def test_implied_directories_get_what_lower_layers_say(
    puller: Puller, store: Store, tar: Any, registry: Any, make_image: Any
) -> None:
    lower = (
        tar()
        .directory(b"./", mode=0o711)
        .directory(b"srv", mode=0o750, uid=5)
        .directory(b"srv/data", mode=0o1777, uid=6, gid=7)
        .directory(b"plain")
        .end()
    )
    upper = tar().file(b"srv/data/f", b"x").file(b"plain/f", b"x").file(b"new/f", b"x").end()
    image = make_image(lower, upper)
    await pull(puller, registry.add("x:1", image))
    found = store.snapshot.images[image.id]
    assert (found.root_mode, found.root_uid) == (0o711, 0)
    assert len(found.layers) == 3
    repair = store.paths.layer(found.layers[-1])
    info = (repair / "srv/data").stat()
    assert (oct(info.st_mode & 0o7777), info.st_uid, info.st_gid) == ("0o1777", 6, 7)
    assert oct((repair / "srv").stat().st_mode & 0o7777) == "0o750"
    assert sorted(str(path.relative_to(repair)) for path in repair.rglob("*")) == ["srv", "srv/data"]
    # the same chain again makes no second one
    await store.remove_images([image.id])
    assert store.snapshot.layers == {}


async def test_what_a_whiteout_took_away_is_no_model_for_implied_directories(
    puller: Puller, store: Store, tar: Any, registry: Any, make_image: Any
) -> None:
    lower = tar().directory(b"d", mode=0o700, uid=5).end()
    middle = tar().file(b".wh.d").end()
    upper = tar().file(b"d/f", b"x").end()
    image = make_image(lower, middle, upper)
    await pull(puller, registry.add("x:1", image))
    assert len(store.snapshot.images[image.id].layers) == 3


async def test_nothing_moving_ends_the_pull(
    make_puller: Callable[..., Puller], store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    puller = make_puller(with_pull(progress_timeout_seconds=0.6))
    registry.stall = 20.0
    with pytest.raises(DeadlineExceeded, match="nothing received nor unpacked"):
        await pull(puller, registry.add("x:1", make_image(layer_of({"big": os.urandom(2_000_000)}))))
    assert store.snapshot.layers == {}


async def test_the_reserve_of_the_disk_is_not_touched(
    make_puller: Callable[..., Puller], store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    unpack = msgspec.structs.replace(Settings().unpack, reserve_bytes=1 << 60)
    puller = make_puller(msgspec.structs.replace(Settings(), unpack=unpack))
    registry.rate = 50_000
    with pytest.raises(DiskFull, match="below the reserve"):
        await pull(puller, registry.add("x:1", make_image(layer_of({"big": os.urandom(200_000)}))))
    assert store.snapshot.layers == {}


async def test_missing_images_and_blobs_are_named(
    puller: Puller, registry: Any, make_image: Any, layer_of: Any
) -> None:
    with pytest.raises(ContentNotFound, match="nothing/here:1"):
        await pull(puller, f"{registry.address}/nothing/here:1")
    image = make_image(layer_of({"a": b"1"}))
    digest = json.loads(image.manifest)["layers"][0]["digest"]
    del image.blobs[digest]
    with pytest.raises(ContentNotFound, match=digest[:19]):
        await pull(puller, registry.add("x:1", image))


async def test_the_platform_is_taken_from_an_index(
    puller: Puller, store: Store, registry: Any, make_image: Any, layer_of: Any
) -> None:
    ours, other = make_image(layer_of({"a": b"amd64"})), make_image(layer_of({"a": b"s390x"}))
    entries = [
        {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": len(image.manifest),
            "platform": {"architecture": architecture, "os": "linux"},
        }
        for image, architecture in ((other, "s390x"), (ours, os.uname().machine.replace("x86_64", "amd64")))
    ]
    kind = "application/vnd.oci.image.index.v1+json"
    index = make_image(layer_of({}))
    index.manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    index.media_type = kind
    registry.add("x:other", other)
    registry.add("x:ours", ours)
    assert await pull(puller, registry.add("x:1", index)) == ours.id
    assert store.snapshot.digests[ours.id] == (f"{registry.address}/x@{index.digest}",)
    # the index is kept, so that the digest that the image is known by can be pushed
    assert store.read_blob(store.snapshot.names[f"{registry.address}/x:1"].target) == index.manifest


def as_artifact(image: Any, *titles: str) -> Any:
    """Make an artifact of an image: its layers become files with these titles."""
    manifest = json.loads(image.manifest)
    image.config = b"{}"
    manifest["artifactType"] = "application/vnd.example.model"
    manifest["config"] = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": image.id, "size": 2}
    for layer, title in zip(manifest["layers"], titles, strict=True):
        layer["mediaType"] = "application/octet-stream"
        if title:
            layer["annotations"] = {"org.opencontainers.image.title": title}
    image.manifest = json.dumps(manifest).encode()
    return image


def artifact_of(make_image: Any, files: dict[str, bytes]) -> Any:
    return as_artifact(make_image(*files.values(), pack=False), *files)


def files_of(store: Store, image_id: str) -> dict[str, bytes]:
    root = store.paths.layer(store.snapshot.images[image_id].layers[0])
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


async def test_an_artifact_becomes_files(
    puller: Puller, store: Store, workers: UnpackWorkers, registry: Any, make_image: Any
) -> None:
    image = as_artifact(
        make_image(b"model", b"card", b"nameless", pack=False), "weights/model.bin", "README.md", ""
    )
    assert await pull(puller, registry.add("m:1", image)) == image.digest
    found = store.snapshot.images[image.digest]
    assert found.kind is ImageKind.ARTIFACT
    root = store.paths.layer(found.layers[0])
    nameless = json.loads(image.manifest)["layers"][2]["digest"][7:]
    assert files_of(store, image.digest) == {
        "weights/model.bin": b"model",
        "README.md": b"card",
        nameless: b"nameless",
    }
    assert await whole(store, workers)
    (root / "README.md").write_bytes(b"Card")
    assert any([not item.ok async for item in verify(store, workers, [found])])


@pytest.mark.parametrize(
    "titles",
    [
        ("../x",),
        ("/etc/passwd",),
        ("a", "a"),
        ("a", "a/b"),
        ("a/b/c", "a"),
        ("x" * 300,),
        ("a//b",),
        ("x/" * 1500 + "x",),
    ],
)
async def test_hostile_titles_are_refused(
    titles: tuple[str, ...], puller: Puller, store: Store, registry: Any, make_image: Any, tmp_path: Path
) -> None:
    image = as_artifact(make_image(*(b"%d" % number for number in range(len(titles))), pack=False), *titles)
    with pytest.raises(ImageMalformed):
        await pull(puller, registry.add("m:1", image))
    await until(lambda: empty(store))


async def test_equal_files_of_an_artifact_come_once_and_the_umask_does_not_matter(
    puller: Puller, store: Store, workers: UnpackWorkers, registry: Any, make_image: Any
) -> None:
    image = as_artifact(make_image(b"same", b"same", b"other", pack=False), "-d/one", "two", "d/e/three")
    before = os.umask(0o077)
    try:
        await pull(puller, registry.add("m:1", image))
    finally:
        os.umask(before)
    assert files_of(store, image.digest) == {"-d/one": b"same", "two": b"same", "d/e/three": b"other"}
    assert len(blobs(registry)) == 2
    root = store.paths.layer(store.snapshot.images[image.digest].layers[0])
    modes = {oct(path.stat().st_mode & 0o7777) for path in (root, *root.rglob("*"))}
    assert modes == {"0o755", "0o644"}
    assert await whole(store, workers)


async def test_an_artifact_is_fetched_once_under_two_names_and_its_files_side_by_side(
    puller: Puller, store: Store, registry: Any, make_image: Any
) -> None:
    image = artifact_of(make_image, {f"part{number}": os.urandom(200_000) for number in range(3)})
    registry.rate = 100_000
    names = [registry.add(name, image) for name in ("m:1", "copy:1")]
    pulls = [asyncio.create_task(pull(puller, name)) for name in names]
    # each of the pulls shows all of the files on their way
    await until(lambda: [sum(f.received > 0 for f in one.layers) for one in puller.board] == [3, 3])
    registry.rate = 0
    assert await asyncio.gather(*pulls) == [image.digest] * 2
    assert len(blobs(registry)) == 3
    assert os.listdir(store.paths.partials) == []


async def test_an_artifact_goes_on_from_what_a_stopped_pull_left(
    puller: Puller, store: Store, registry: Any, make_image: Any
) -> None:
    small, large = os.urandom(1000), os.urandom(1_000_000)
    image = artifact_of(make_image, {"small": small, "large": large})
    name = registry.add("m:1", image)
    registry.rate = 100_000
    task = asyncio.create_task(pull(puller, name))
    await until(lambda: spooled(store) > 50_000)
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: not os.listdir(store.paths.tmp))
    registry.rate = 0
    before = len(blobs(registry))
    await pull(puller, name)
    (last,) = blobs(registry)[before:]
    assert int(last.partition("bytes=")[2].partition("-")[0]) > 40_000
    assert files_of(store, image.digest) == {"small": small, "large": large}


async def test_a_pull_that_is_stopped_while_files_of_an_artifact_are_placed_leaves_nothing(
    puller: Puller, store: Store, registry: Any, make_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, release, ended = threading.Event(), threading.Event(), threading.Event()
    place = artifacts._place

    def late(*args: Any) -> int:
        began.set()
        assert release.wait(60)
        try:
            return place(*args)
        finally:
            ended.set()

    monkeypatch.setattr(artifacts, "_place", late)
    name = registry.add("m:1", artifact_of(make_image, {"a": b"1", "b/c": b"2"}))
    task = asyncio.create_task(pull(puller, name))
    await until(began.is_set)
    task.cancel()
    await asyncio.wait([task], timeout=1)  # who does not wait for the thread clears up before it
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(ended.is_set)
    await until(lambda: not os.listdir(store.paths.tmp))


async def test_what_is_left_of_an_artifact_and_wrong_is_fetched_again(
    puller: Puller, store: Store, registry: Any, make_image: Any
) -> None:
    image = artifact_of(make_image, {"a": b"right" * 1000, "b": b"too long"})
    key = artifact_key(Digest(image.digest))
    for layer, left in zip(
        json.loads(image.manifest)["layers"], (b"wrong", b"longer than it is"), strict=True
    ):
        store.paths.partial(Digest(layer["digest"]), key).write_bytes(left)
    await pull(puller, registry.add("m:1", image))
    assert files_of(store, image.digest) == {"a": b"right" * 1000, "b": b"too long"}


async def test_a_wrong_file_of_an_artifact_is_refused(
    puller: Puller, store: Store, registry: Any, make_image: Any
) -> None:
    image = artifact_of(make_image, {"a": b"right"})
    image.blobs[json.loads(image.manifest)["layers"][0]["digest"]] = b"wrong"
    with pytest.raises(LayerMismatch):
        await pull(puller, registry.add("m:1", image))
    assert store.snapshot.images == {} and os.listdir(store.paths.partials) == []


async def test_an_artifact_leaves_the_reserve_of_the_disk_alone(
    puller: Puller, store: Store, registry: Any, make_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = artifact_of(make_image, {"first": b"1", "large": os.urandom(1_000_000)})
    monkeypatch.setattr(store, "free_bytes", lambda: 1 << 40 if spooled(store) < 300_000 else 0)
    with pytest.raises(DiskFull, match="below the reserve"):
        await pull(puller, registry.add("m:1", image))
    assert store.snapshot.layers == {} and os.listdir(store.paths.partials) == []


async def test_a_file_is_closed_behind_its_last_write(tmp_path: Path) -> None:
    """And not under it: the write would go to whatever gets the number of the descriptor next."""
    writing, go_on = threading.Event(), threading.Event()
    path = tmp_path / "partial"

    def check() -> None:
        writing.set()
        go_on.wait(60)

    def is_open() -> bool:
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return any(os.path.lexists(link) and os.readlink(link) == str(path) for link in links)

    async def write() -> None:
        blob = Descriptor("application/octet-stream", Digest.of(b"data"), 4)
        async with partial_file(path, blob, check) as file:
            await file.write(b"data")

    task = asyncio.create_task(write())
    await asyncio.to_thread(writing.wait, 60)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
    assert is_open() and not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert path.read_bytes() == b"data" and not is_open()
