"""Changes of directories, told on the event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from triptych_linux.inotify import Change, Inotify


async def test_events_of_entries(tmp_path: Path) -> None:
    heard: list[tuple[int, Change, str]] = []
    inotify = Inotify(lambda watch, change, name: heard.append((watch, change, name)))
    try:
        watch = inotify.watch(tmp_path, Change.entries() | Change.ONLYDIR)
        assert inotify.watch(tmp_path, Change.entries() | Change.ONLYDIR) == watch
        (tmp_path / "ä name").write_text("x")
        (tmp_path / "ä name").rename(tmp_path / "other")
        (tmp_path / "other").unlink()
        await asyncio.sleep(0.05)
        assert [(w, n) for w, _, n in heard] == [
            (watch, "ä name"),
            (watch, "ä name"),
            (watch, "ä name"),
            (watch, "other"),
            (watch, "other"),
        ]
        kinds = [Change.CREATE, Change.CLOSE_WRITE, Change.MOVED_FROM, Change.MOVED_TO, Change.DELETE]
        assert all(change & kind for (_, change, _), kind in zip(heard, kinds, strict=True))
        inotify.forget(watch)
        heard.clear()
        (tmp_path / "unheard").touch()
        await asyncio.sleep(0.05)
        assert [change for _, change, _ in heard] == [Change.IGNORED]
        with pytest.raises(FileNotFoundError):
            inotify.watch(tmp_path / "absent", Change.entries())
    finally:
        inotify.close()
        inotify.close()
