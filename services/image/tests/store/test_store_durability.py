from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from triptych_image.store import durability
from triptych_image.store.durability import SyncGate


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Semaphore, list[str]]:
    """Syncs that wait to be let through; the list shows when each began and ended."""
    gate, events = threading.Semaphore(0), list[str]()

    def sync(path: Path) -> None:
        events.append("begin")
        gate.acquire(timeout=10)
        events.append("end")

    monkeypatch.setattr(durability, "sync_filesystem", sync)
    return gate, events


async def test_who_comes_during_a_sync_waits_for_the_next_and_shares_it(
    tmp_path: Path, slow: tuple[threading.Semaphore, list[str]]
) -> None:
    gate, events = slow
    syncs = SyncGate(tmp_path)
    first = asyncio.create_task(syncs.sync())
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(syncs.sync()) for _ in range(10)]
    await asyncio.sleep(0.05)
    gate.release()
    await first
    await asyncio.sleep(0.05)
    assert not any(other.done() for other in others)
    gate.release()
    await asyncio.gather(*others)
    assert events == ["begin", "end"] * 2


async def test_a_failed_sync_is_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    syncs = SyncGate(tmp_path)
    monkeypatch.setattr(durability, "sync_filesystem", fail)
    with pytest.raises(OSError, match="Input/output"):
        await syncs.sync()
    monkeypatch.setattr(durability, "sync_filesystem", lambda path: None)
    await syncs.sync()


async def test_it_really_syncs(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    await SyncGate(tmp_path).sync()
    assert len(durability.boot_id()) == 36
