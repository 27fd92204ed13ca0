"""A removal beside the making of what it removes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from triptych_image.rootfs.manager import RootfsManager
from triptych_image.rootfs.usage import UsageMeter
from triptych_image.store import Paths, RootfsKind, RootfsRecord, Store
from triptych_oci import Digest


@pytest.mark.parametrize("prefix", [False, True])
async def test_what_is_made_for_a_caller_who_went_away_is_removed(tmp_path: Path, prefix: bool) -> None:
    """The runtime daemon calls a create off while its root filesystem is prepared, and takes that back."""
    paths = Paths(tmp_path / "store", tmp_path / "store/rootfs")
    paths.make()
    store, meter = Store(paths, sync=False), UsageMeter(0)
    await store.open()
    manager = RootfsManager(store, meter)
    begun, go_on = threading.Event(), threading.Event()
    key = "c1/0" if prefix else "c1"
    record = RootfsRecord(key, RootfsKind.CONTAINER, "image", Digest.of(b"{}"), (), "", "", False, 0, 0, 1)

    def make() -> None:
        begun.set()
        assert go_on.wait(60)
        paths.writable(key).mkdir(parents=True)

    adding = asyncio.create_task(store.add_rootfs(record, make))
    assert await asyncio.to_thread(begun.wait, 60)
    adding.cancel()
    removing = asyncio.create_task(manager.remove("c1", prefix=prefix))
    await asyncio.sleep(0)
    go_on.set()
    await removing
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert store.snapshot.rootfs == {}
    assert not paths.writable(key).exists()
    await manager.remove("c1", prefix=prefix)
    meter.close()
    await store.close()
