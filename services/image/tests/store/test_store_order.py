"""In which order files, syncs and rows are written: what docs/image-store.md says survives a power loss."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from triptych_image.store import (
    ImageKind,
    ImageRecord,
    LayerRecord,
    NameRecord,
    Paths,
    Store,
    _commits,
    durability,
    layer_key,
)
from triptych_oci import Digest

MANIFEST, CONFIG = b"manifest", b"config"
IMAGE = Digest.of(CONFIG)


class Recorder:
    """What was done to files and rows, in order."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.events: list[str] = []
        for name in ("rename", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._told(name, getattr(os, name)))
        monkeypatch.setattr(durability, "sync_filesystem", self._synced)

    def _told(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            done = real(path, *rest, **options)
            fd = options.get("dst_dir_fd", options.get("dir_fd"))
            base = Path("/" if fd is None else os.readlink(f"/proc/self/fd/{fd}"))
            target = base / (rest[0] if name == "rename" else path)
            self.events.append(f"{name} {target.relative_to(self.root).parts[0]}")
            return done

        return call

    def _synced(self, path: Path) -> None:
        assert path == self.root
        self.events.append("sync")

    def statement(self, text: str) -> None:
        words = text.split()
        if words[0] in ("BEGIN", "COMMIT", "ROLLBACK"):
            self.events.append(words[0])
        elif words[0] in ("INSERT", "DELETE", "UPDATE"):
            self.events.append(" ".join(words[:3] if words[0] != "UPDATE" else words[:2]))
        elif "synchronous=" in text:
            self.events.append(text.rpartition("=")[2])

    def take(self) -> list[str]:
        taken, self.events = self.events, []
        return taken


@pytest.fixture
async def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Store, Recorder]]:
    store = Store(Paths(tmp_path / "store", tmp_path / "store/rootfs"))
    await store.open()
    recorder = Recorder(store.paths.root, monkeypatch)

    def trace(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(recorder.statement)

    await store._database.run(trace)
    yield store, recorder
    await store.close()


async def add_image(store: Store, config: bytes = CONFIG) -> None:
    name, image_id = f"layer of {config!r}", Digest.of(config)
    key = layer_key(name)
    with store.importing() as hold:
        await hold.blobs({Digest.of(MANIFEST): MANIFEST, image_id: config})
        tree = store.paths.scratch()
        tree.mkdir()
        (tree / "file").write_text("x")
        tape = tree.with_suffix(".tape")
        tape.touch()
        record = LayerRecord(key, name, 4096, 1, True, store.boot, time.time_ns())
        await store.add_layer(record, tree, tape)
        blobs = (Digest.of(MANIFEST), image_id)
        image = ImageRecord(
            image_id, ImageKind.IMAGE, blobs[0], image_id, (key,), blobs, 8192, "", {}, 0o755, 0, 0, "", 1
        )
        await store.commit_image(image, [NameRecord(f"host/{image_id.hex}:1", image_id, blobs[0])])


async def test_data_then_sync_then_a_synced_row(recorded: tuple[Store, Recorder]) -> None:
    store, recorder = recorded
    await add_image(store)
    events = recorder.take()
    assert [event for event in events if event.startswith(("rename", "sync", "INSERT INTO images"))] == [
        "rename blobs",
        "rename blobs",
        "rename l",
        "rename t",
        "sync",
        "INSERT INTO images",
    ]
    synced = events[events.index("sync") :]
    assert synced[:3] == ["sync", "FULL", "BEGIN"]
    assert synced[-2:] == ["COMMIT", "NORMAL"]
    # The layer stops being one that only this boot vouches for in the transaction that follows the sync.
    assert events.index("UPDATE layers") > events.index("INSERT INTO images") > events.index("FULL")


async def test_images_that_are_whole_together_share_the_sync_and_the_transaction(
    recorded: tuple[Store, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, recorder = recorded
    monkeypatch.setattr(_commits, "_GATHER_SECONDS", 3600.0)
    await asyncio.gather(*(add_image(store, b"config %d" % number) for number in range(3)))
    events = recorder.take()
    (synced,) = (position for position, event in enumerate(events) if event == "sync")
    made = [position for position, event in enumerate(events) if event.startswith("rename")]
    assert len(made) == 3 * 2 + 1 + 3 and max(made) < synced
    assert events[synced : synced + 3] == ["sync", "FULL", "BEGIN"]
    assert events[-2:] == ["COMMIT", "NORMAL"]
    assert events[synced:].count("INSERT INTO images") == 3
    assert events.count("COMMIT") == 3 + 1
    assert len(store.snapshot.images) == len(store.snapshot.names) == 3


async def test_a_layer_has_its_row_after_its_files(recorded: tuple[Store, Recorder]) -> None:
    store, recorder = recorded
    await add_image(store)
    events = recorder.take()
    assert events.index("rename l") < events.index("rename t") < events.index("INSERT INTO layers")


async def test_a_synced_row_goes_before_files(recorded: tuple[Store, Recorder]) -> None:
    store, recorder = recorded
    await add_image(store)
    recorder.take()
    await store.remove_images([IMAGE])
    removed = recorder.take()
    await store.empty_trash()
    freed = recorder.take()
    assert removed[:3] == ["FULL", "BEGIN", "DELETE FROM images"]
    committed = removed.index("COMMIT")
    assert "DELETE FROM layers" in removed[:committed]
    assert removed[committed:] == ["COMMIT", "NORMAL", *["rename trash"] * 4]
    assert "rmdir trash" in freed and "unlink trash" in freed
    assert {event.split()[1] for event in freed} == {"trash"}
    assert os.listdir(store.paths.trash) == []


async def test_without_a_sync_no_row(
    recorded: tuple[Store, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, recorder = recorded

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durability, "sync_filesystem", fail)
    with pytest.raises(Exception, match="Input/output error"):
        await add_image(store)
    assert "INSERT INTO images" not in recorder.take()
    assert store.snapshot.images == {}
