from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from triptych_image.app import App
from triptych_image.errors import ImageNotFound, StoreUnusable
from triptych_image.janitor import clean
from triptych_image.store import (
    ImageKind,
    ImageRecord,
    LayerRecord,
    NameRecord,
    Paths,
    RootfsKind,
    RootfsRecord,
    Store,
    layer_key,
)
from triptych_image.store._database import Database
from triptych_image.store.ballast import Ballast
from triptych_oci import Digest


def layer(name: str, *, boot: str = "", created_at: int | None = None) -> LayerRecord:
    now = time.time_ns() if created_at is None else created_at
    return LayerRecord(layer_key(name), name, 4096, 1, True, boot, now)


async def add_layer(store: Store, name: str, *, boot: str = "", created_at: int | None = None) -> str:
    record = layer(name, boot=boot, created_at=created_at)
    tree = store.paths.scratch()
    tree.mkdir()
    (tree / name).write_text(name)
    tape = tree.with_suffix(".tape")
    tape.touch()
    await store.add_layer(record, tree, tape)
    return record.key


def image(config: bytes, *layers: str, manifest: bytes = b"m") -> ImageRecord:
    blobs = (Digest.of(manifest), Digest.of(config))
    return ImageRecord(
        id=Digest.of(config),
        kind=ImageKind.IMAGE,
        manifest=blobs[0],
        config=blobs[1],
        layers=layers,
        blobs=tuple(sorted(blobs)),
        blob_bytes=8192,
        user="",
        annotations={"a": "b"},
        root_mode=0o755,
        root_uid=0,
        root_gid=0,
        source="",
        created_at=1,
    )


async def add_image(
    store: Store, config: bytes, *layers: str, name: str = "", manifest: bytes = b"m"
) -> ImageRecord:
    record = image(config, *layers, manifest=manifest)
    with store.hold() as hold:
        await hold.blobs({record.manifest: manifest, record.config: config})
        names = [NameRecord(name, record.id, record.manifest)] if name else []
        await store.commit_image(record, names)
    return record


def rootfs(key: str, of: ImageRecord, kind: RootfsKind = RootfsKind.CONTAINER) -> RootfsRecord:
    return RootfsRecord(key, kind, of.id, of.config, of.layers, "", "", False, 0, 0, 1)


async def reopened(store: Store, **options: float) -> Store:
    await store.close()
    again = Store(store.paths, sync=False, **options)
    await again.open()
    return again


def on_disk(store: Store) -> dict[str, int]:
    places = {"l": store.paths.layers, "t": store.paths.tapes, "b": store.paths.blobs / "sha256"}
    return {name: len(os.listdir(path)) for name, path in places.items()}


async def test_what_is_committed_survives(store: Store) -> None:
    keys = [await add_layer(store, "one"), await add_layer(store, "two")]
    added = await add_image(store, b"c", *keys, name="host/x:1")
    assert store.find("host/x:1") == added == store.find(added.id)
    assert store.snapshot.layer_bytes == 2 * 4096 + 8192
    before = store.snapshot
    again = await reopened(store)
    assert again.snapshot == before
    assert again.read_blob(added.config) == b"c"
    await again.close()


async def test_blobs_that_images_share_are_counted_once(store: Store) -> None:
    key = await add_layer(store, "one")
    one = await add_image(store, b"1", key)
    two = await add_image(store, b"2", key)
    assert (one.blob_bytes, two.blob_bytes) == (8192, 8192)
    assert store.snapshot.layer_bytes == 4096 + 3 * 4096
    again = await reopened(store)
    assert again.snapshot.layer_bytes == 4096 + 3 * 4096
    await again.remove_images([one.id])
    assert again.snapshot.layer_bytes == 4096 + 2 * 4096
    await again.close()


async def test_removal_takes_what_nobody_else_has(store: Store) -> None:
    shared, own = await add_layer(store, "shared"), await add_layer(store, "own")
    one = await add_image(store, b"1", shared, own, name="host/x:1", manifest=b"m1")
    two = await add_image(store, b"2", shared, name="host/y:1", manifest=b"m2")
    await store.remove_images([one.id])
    assert set(store.snapshot.layers) == {shared}
    assert store.snapshot.names.keys() == {"host/y:1"}
    assert on_disk(store) == {"l": 1, "t": 1, "b": 2}
    await store.remove_images([two.id, "sha256:unknown"])
    assert on_disk(store) == {"l": 0, "t": 0, "b": 0}
    assert (store.snapshot.layer_bytes, store.snapshot.layer_inodes) == (0, 0)
    assert len(os.listdir(store.paths.trash)) == 8
    await store.empty_trash()
    assert os.listdir(store.paths.trash) == []


async def test_a_name_moves_and_the_old_image_stays(store: Store) -> None:
    key = await add_layer(store, "l")
    one = await add_image(store, b"1", key, name="host/x:1")
    two = await add_image(store, b"2", key, name="host/x:1")
    assert store.find("host/x:1") == two
    assert store.find(one.id) == one
    assert store.snapshot.tags.get(one.id, ()) == ()


async def test_layers_in_use_outlive_their_image(store: Store) -> None:
    key = await add_layer(store, "l")
    added = await add_image(store, b"1", key)
    path = store.paths.writable("c1")
    await store.add_rootfs(rootfs("c1", added), lambda: path.mkdir())
    await store.remove_images([added.id])
    assert key in store.snapshot.layers and store.paths.layer(key).exists()
    assert store.read_blob(added.config) == b"1"
    again = await reopened(store)
    assert key in again.snapshot.layers and again.read_blob(added.config) == b"1"
    await again.remove_rootfs(["c1"])
    assert on_disk(again) == {"l": 0, "t": 0, "b": 0}
    assert not path.exists()
    await again.close()


async def test_claims_keep_layers_and_blobs(store: Store) -> None:
    key = await add_layer(store, "l")
    added = await add_image(store, b"1", key)
    with store.hold() as hold:
        assert await hold.layers([key, "other"]) == {key}
        await hold.blobs({added.config: b"1"})
        await store.remove_images([added.id])
        assert key in store.snapshot.layers
        assert store.read_blob(added.config) == b"1"
    assert await store.collect(all_unused=True) == (1, 4096)
    with pytest.raises(ImageNotFound):
        store.read_blob(added.config)


async def test_a_removal_during_a_commit_takes_the_older_blobs_along(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await add_layer(store, "l")
    first = await add_image(store, b"1", key, manifest=b"m1")
    await add_image(store, b"1", key, manifest=b"m2")
    assert len(store.snapshot.images[first.id].blobs) == 3
    synced = store.sync

    async def sync() -> None:
        await synced()
        await store.remove_images([first.id])

    with store.hold() as hold:
        await hold.layers([key])
        monkeypatch.setattr(store, "sync", sync)
        await add_image(store, b"1", key, manifest=b"m3")
    blobs = store.snapshot.images[first.id].blobs
    assert set(blobs) == {first.id, Digest.of(b"m3")}
    assert all(store.blob_size(digest) for digest in blobs)
    again = await reopened(store)
    assert set(again.snapshot.images) == {first.id}
    await again.close()


async def test_finished_layers_wait_for_the_next_attempt(store: Store) -> None:
    young = await add_layer(store, "young")
    await add_layer(store, "old", created_at=1)
    assert await store.collect() == (1, 4096)
    assert set(store.snapshot.layers) == {young}
    again = await reopened(store)
    assert set(again.snapshot.layers) == {young}
    later = await reopened(again, keep_seconds=0.0)
    assert on_disk(later)["l"] == 0
    await later.close()


async def test_layers_of_another_boot_are_not_trusted_unless_synced(store: Store) -> None:
    await add_layer(store, "unsynced", boot="another boot")
    synced = await add_layer(store, "synced", boot="another boot")
    await add_image(store, b"1", synced)
    again = await reopened(store)
    assert set(again.snapshot.layers) == {synced}
    assert on_disk(again)["l"] == 1
    await again.close()


async def test_leftovers_are_put_away_at_start(store: Store) -> None:
    key = await add_layer(store, "l")
    await add_image(store, b"1", key)
    for path in (store.paths.layers / "stray", store.paths.tmp / "x", store.paths.rootfs / "gone"):
        path.mkdir()
    (store.paths.tapes / "stray").touch()
    (store.paths.blobs / "sha256" / ("0" * 64)).touch()
    old = store.paths.partials / "sha256-old"
    old.touch()
    os.utime(old, (1, 1))
    (store.paths.partials / "sha256-young").touch()
    again = await reopened(store)
    assert on_disk(again) == {"l": 1, "t": 1, "b": 2}
    assert [os.listdir(p) for p in (again.paths.tmp, again.paths.rootfs)] == [[], []]
    assert os.listdir(again.paths.partials) == ["sha256-young"]
    await again.close()


async def test_files_to_go_on_from_go_when_nobody_did(store: Store) -> None:
    partials = store.paths.partials
    for name in ("old", "held", "young"):
        (partials / name).write_bytes(b"x" * 5000)
    for name in ("old", "held"):
        os.utime(partials / name, (1, 1))
    async with store.hold_partial(partials / "held"):
        assert await store.collect_partials() == 8192
        assert sorted(os.listdir(partials)) == ["held", "young"]
        assert await store.collect_partials(all_unused=True) == 8192
        assert os.listdir(partials) == ["held"]
    assert await store.collect_partials() == 8192
    assert os.listdir(partials) == []


async def test_a_file_to_go_on_from_may_go_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes it removes it at the end, in a thread of his own."""
    held = store.paths.partials / "held"
    held.touch()
    original = os.scandir

    @contextlib.contextmanager
    def scandir(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with original(path) as entries:
            found = list(entries)
        held.unlink()
        yield found

    async with store.hold_partial(held):
        monkeypatch.setattr(os, "scandir", scandir)
        assert await store.collect_partials(all_unused=True) == 0


async def test_the_janitor_drops_files_to_go_on_from(store: Store) -> None:
    old = store.paths.partials / "old"
    old.touch()
    os.utime(old, (1, 1))
    cleaning = asyncio.create_task(clean(cast(App, SimpleNamespace(store=store))))
    async with asyncio.timeout(60):
        while old.exists() or os.listdir(store.paths.trash):
            await asyncio.sleep(0.02)
    cleaning.cancel()
    await asyncio.wait([cleaning])


@pytest.mark.parametrize("victim", ["layer", "config", "manifest"])
async def test_an_image_that_lost_something_is_dropped_and_the_others_stay(
    store: Store, victim: str
) -> None:
    one, two = await add_layer(store, "one"), await add_layer(store, "two")
    broken = await add_image(store, b"1", one, name="host/x:1", manifest=b"m1")
    whole = await add_image(store, b"2", two, name="host/y:1", manifest=b"m2")
    if victim == "layer":
        os.rename(store.paths.layer(one), store.paths.tmp / "lost")
    else:
        store.paths.blob(getattr(broken, victim)).unlink()
    again = await reopened(store)
    assert set(again.snapshot.images) == {whole.id}
    assert again.find("host/x:1") is None
    await again.close()


async def test_a_rootfs_without_directory_is_dropped(store: Store) -> None:
    key = await add_layer(store, "l")
    added = await add_image(store, b"1", key)
    path = store.paths.writable("c1")
    await store.add_rootfs(rootfs("c1", added), lambda: path.mkdir())
    await store.add_rootfs(rootfs("v/1", added, RootfsKind.VOLUME))
    path.rmdir()
    again = await reopened(store)
    assert set(again.snapshot.rootfs) == {"v/1"}
    await again.close()


async def test_a_rootfs_that_cannot_be_made_leaves_nothing(store: Store) -> None:
    added = await add_image(store, b"1", await add_layer(store, "l"))

    def fail() -> None:
        store.paths.writable("c1").mkdir()
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        await store.add_rootfs(rootfs("c1", added), fail)
    assert store.snapshot.rootfs == {}
    assert not store.paths.writable("c1").exists()


async def test_a_rootfs_of_removed_layers_is_refused(store: Store) -> None:
    added = await add_image(store, b"1", await add_layer(store, "l"))
    await store.remove_images([added.id])
    with pytest.raises(ImageNotFound):
        await store.add_rootfs(rootfs("c1", added))


async def test_keys_that_are_no_file_names_get_one(store: Store) -> None:
    plain = "a" * 64
    assert store.paths.writable(plain).name == plain
    names = {store.paths.writable(key).name for key in ("../x", "a/b", "..", "x" * 400, "a" * 65 + "/0")}
    assert len(names) == 5
    assert all("/" not in name and len(name) < 60 for name in names)


async def test_two_daemons_do_not_share_a_store(store: Store) -> None:
    with pytest.raises(StoreUnusable, match="another daemon"):
        await Store(store.paths).open()


async def test_a_later_store_is_refused(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "s", tmp_path / "s/rootfs")
    paths.make()
    with sqlite3.connect(paths.database) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    opened = Store(paths)
    with pytest.raises(StoreUnusable, match="later version"):
        await opened.open()
    await opened.close()


@pytest.mark.parametrize("damage", ["junk", "middle"])
async def test_a_broken_database_is_put_aside_with_all_that_it_knew(store: Store, damage: str) -> None:
    keys = [await add_layer(store, f"l{number}") for number in range(300)]
    added = await add_image(store, b"1", *keys, name="host/x:1")
    path = store.paths.writable("c1")
    await store.add_rootfs(rootfs("c1", added), lambda: path.mkdir())
    await store.close()
    raw = bytearray(store.paths.database.read_bytes())
    if damage == "junk":
        raw[:] = b"junk" * 1000
    else:
        raw[4096 : len(raw)] = b"\xff" * (len(raw) - 4096)
    store.paths.database.write_bytes(raw)
    again = Store(store.paths, sync=False)
    await again.open()
    assert again.snapshot.images == {}
    (aside,) = again.paths.root.glob("broken-*")
    assert (aside / "l" / keys[0] / "l0").read_text() == "l0"
    assert (aside / "rootfs/c1").is_dir()
    assert on_disk(again) == {"l": 0, "t": 0, "b": 0}
    await add_image(again, b"2", await add_layer(again, "new"), name="host/x:1")
    await again.close()


@pytest.mark.parametrize("place", ["store/rootfs", "disk"])
async def test_writable_layers_at_a_mount_point_are_put_aside_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    paths = Paths(tmp_path / "store", tmp_path / place)
    paths.make()
    (paths.rootfs / "c1/upper").mkdir(parents=True)
    paths.database.write_bytes(b"junk" * 1000)
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if Path(source) == paths.rootfs:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    opened = Store(paths, sync=False)
    await opened.open()
    await opened.close()
    await (again := Store(paths, sync=False)).open()
    (aside,) = paths.root.glob("broken-*")
    assert (paths.rootfs / f".{aside.name}/c1/upper").is_dir()
    await again.close()


async def test_readers_keep_what_they_took(store: Store) -> None:
    key = await add_layer(store, "l")
    added = await add_image(store, b"1", key, name="host/x:1")
    taken = store.snapshot
    await store.remove_images([added.id])
    assert taken.images[added.id] == added
    assert store.snapshot.images == {}


async def test_an_image_that_comes_again_keeps_its_age(store: Store) -> None:
    key = await add_layer(store, "l")
    first = await add_image(store, b"1", key, name="host/x:1")
    await store.commit_image(replace(first, annotations={}, source="host/x:1"), [])
    found = store.find(first.id)
    assert found is not None
    assert (found.created_at, found.source, store.find("host/x:1")) == (1, "host/x:1", found)


async def test_a_failure_that_its_cancelled_caller_never_hears_of_is_no_error_of_the_loop(
    store: Store,
) -> None:
    stray: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: stray.append(context))
    began, end = threading.Event(), threading.Event()

    def fail(_: sqlite3.Connection) -> None:
        began.set()
        assert end.wait(60)
        raise OSError(errno.EIO, "no disk")

    database = Database(store.paths.root / "other.db", Ballast(store.paths.root / "other"))
    running = asyncio.create_task(database.run(fail))
    await asyncio.to_thread(began.wait, 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    end.set()
    await database.close()
    del running
    gc.collect()
    await asyncio.sleep(0)
    assert stray == []
