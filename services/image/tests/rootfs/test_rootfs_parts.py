"""The parts of root filesystems that need no daemon."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from triptych_image.errors import InvalidRequest, LayerMalformed
from triptych_image.layers import implied, merged
from triptych_image.layers.inroot import open_beneath
from triptych_image.layers.marks import is_opaque, set_opaque
from triptych_image.rootfs.manager import Mapping, RootfsManager, check_key, map_id
from triptych_image.rootfs.usage import UsageMeter
from triptych_image.rootfs.walk import walk
from triptych_image.store import Store
from triptych_oci import Digest


def test_owners_are_mapped() -> None:
    mappings = [Mapping(1000, 0, 10), Mapping(5000, 100, 5)]
    assert [map_id(number, mappings, "uid") for number in (0, 9, 104)] == [1000, 1009, 5004]
    assert map_id(77, [], "uid") == 77
    with pytest.raises(InvalidRequest, match="gid_mappings"):
        map_id(50, mappings, "gid")


@pytest.mark.parametrize("key", ["", "..", "a/../b", "a//b", "/a", "a/", "a\0b", "x" * 600])
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(InvalidRequest):
        check_key(key)


async def test_only_small_configs_are_kept_in_memory(store: Store) -> None:
    meter = UsageMeter(60)
    manager = RootfsManager(store, meter)
    configs = [b"{}", b"x" * 1_000_000]
    with store.hold() as hold:
        await hold.blobs({Digest.of(config): config for config in configs})
        for config in configs:
            image: Any = SimpleNamespace(config=Digest.of(config))
            assert await manager._config(image) == config
    assert list(manager._configs.values()) == [b"{}"]
    meter.close()


async def test_usage_counts_what_du_counts(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "d/f", tmp_path / "d/g")
    meter = UsageMeter(60)
    found = (await meter.measure([("k", tmp_path, 0)]))["k"]
    blocks = sum(path.lstat().st_blocks * 512 for path in (tmp_path, tmp_path / "d", tmp_path / "d/f"))
    assert (found.bytes, found.inodes) == (blocks, 3)
    (tmp_path / "h").write_bytes(b"x" * 100_000)
    assert (await meter.measure([("k", tmp_path, 0)]))["k"] == found
    assert meter.known() == (blocks, 3)
    meter.max_age = 0
    assert (await meter.measure([("k", tmp_path, 0)]))["k"].inodes == 4
    meter.forget(["k"])
    assert meter.known() == (0, 0)
    assert await meter.measure([("gone", tmp_path / "gone", 0)]) == {}
    meter.close()


async def test_usage_counts_what_lies_deeper_than_a_path_can_be_long(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_DIRECTORY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/f").touch()
    meter = UsageMeter(60)
    assert (await meter.measure([("k", tmp_path, 0)]))["k"].inodes == 1 + 40 + 1 + 2
    meter.close()


def test_a_walk_goes_on_where_a_directory_was_moved_and_follows_no_symlink(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"x" * 54321)
    sizes = {11111: "one", 22222: "two"}
    for size, name in sizes.items():
        (root / name / "below").mkdir(parents=True)
        (root / name / "below/f").write_bytes(b"x" * size)
    found: list[int] = []
    for info in walk(root):
        if stat.S_ISREG(info.st_mode):
            found.append(info.st_size)
        if len(found) == 1 and not (outside / "moved").exists():
            first = root / sizes[found[0]]
            (first / "below").rename(outside / "moved")
            first.rmdir()
            first.symlink_to(outside)
    assert sorted(found) == sorted(sizes)


async def test_a_slow_walk_holds_nobody_up_who_has_a_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych_image.rootfs import usage

    meter = UsageMeter(0)
    first = await meter.measure([("k", tmp_path, 0)])
    original = usage._measure

    go_on = threading.Event()

    def slow(path: Path, project: int) -> usage.Usage | None:
        go_on.wait(60)
        return original(path, project)

    monkeypatch.setattr(usage, "_measure", slow)
    monkeypatch.setattr(usage, "_PATIENCE_SECONDS", 0.05)
    assert await meter.measure([("k", tmp_path, 0)]) == first
    assert not go_on.is_set()
    go_on.set()
    meter.close()


async def test_a_walk_that_outlasts_its_layer_leaves_no_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych_image.rootfs import usage

    go_on = threading.Event()

    def slow(path: Path, project: int) -> usage.Usage | None:
        go_on.wait(60)
        return usage.Usage(1000, 10, 1)

    monkeypatch.setattr(usage, "_measure", slow)
    meter = UsageMeter(60)
    meter.refresh([("k", tmp_path, 0)])
    walk = meter._running["k"]
    meter.forget(["k"])
    go_on.set()
    await walk
    await asyncio.sleep(0)
    assert meter.known() == (0, 0)
    meter.close()


def test_paths_are_opened_below_a_directory_only(tmp_path: Path) -> None:
    (tmp_path / "root/d").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to("d")
    for path in ("link", "link/x", "../root", "d/../../root", "/etc", "missing"):
        if path == "link":
            os.close(open_beneath(tmp_path / "root", path))
            continue
        with pytest.raises(OSError):
            open_beneath(tmp_path / "root", path)
    os.close(open_beneath(tmp_path / "root", "d"))


@pytest.mark.integration
class TestLayers:
    """Layers as directories, with overlayfs's marks, which only root may set."""

    def tree(self, root: Path, *entries: str) -> Path:
        """Entries: "d/" a directory, "f" a file, "!x" a whiteout, "a>b" a symlink, "d/!" opaque."""
        root.mkdir()
        for entry in entries:
            if entry.endswith("/!"):
                set_opaque(root, [entry[:-2]])
            elif entry.endswith("/"):
                (root / entry).mkdir(parents=True)
            elif "!" in entry:
                os.mknod(root / entry.replace("!", ""), 0o20000, 0)
            elif ">" in entry:
                name, _, target = entry.partition(">")
                (root / name).symlink_to(target)
            else:
                (root / entry).write_text(root.name)
        return root

    def test_opaque_marks(self, tmp_path: Path) -> None:
        root = self.tree(tmp_path / "l", "d/", "d/e/", "d/!")
        assert (is_opaque(root, "d"), is_opaque(root, "d/e"), is_opaque(root, "x")) == (True, False, False)
        (root / "link").symlink_to("d")
        (root / "file").touch()
        for path in ("../l", "link/e", "link", "file", "missing"):
            with pytest.raises(LayerMalformed, match=path):
                set_opaque(root, [path])

    def test_lookups_see_what_a_mount_would(self, tmp_path: Path) -> None:
        low = self.tree(
            tmp_path / "low", "d/", "d/a", "d/b", "o/", "o/hidden", "f", "l>d", "abs>/d/a", "up>../.."
        )
        top = self.tree(tmp_path / "top", "d/", "d/!a", "o/", "o/new", "o/!", "l2>l/b")
        layers = [top, low]
        assert merged.lookup(layers, "").st_ino == top.stat().st_ino
        assert merged.lookup(layers, "d/b").st_ino == (low / "d/b").stat().st_ino
        assert merged.lookup(layers, "l2").st_ino == (low / "d/b").stat().st_ino
        assert merged.lookup(layers, "up/f").st_ino == (low / "f").stat().st_ino
        assert merged.lookup(layers, "o/new").st_ino == (top / "o/new").stat().st_ino
        for path in ("d/a", "abs", "o/hidden", "f/x", "none"):
            with pytest.raises(OSError):
                merged.lookup(layers, path)

    def test_what_an_opaque_directory_hides_stays_hidden_at_any_depth(self, tmp_path: Path) -> None:
        low = self.tree(tmp_path / "low", "o/", "o/d/", "o/d/hidden", "s>o", "o/d/e/")
        (low / "o/d/e").chmod(0o700)
        mid = self.tree(tmp_path / "mid", "o/", "o/d/", "o/d/e/", "o/d/e/f")
        top = self.tree(tmp_path / "top", "o/", "o/d/", "o/!", "s/")
        for path in ("o/d/hidden", "s/d"):
            with pytest.raises(FileNotFoundError):
                merged.lookup([top, mid, low], path)
        trees = [
            implied.LayerTree(top, frozenset({""}), frozenset({"o"})),
            implied.LayerTree(mid, frozenset({"", "o", "o/d", "o/d/e"})),
            implied.LayerTree(low, frozenset()),
        ]
        assert implied.wrong(trees) == {}
        assert set(implied.wrong(trees[1:])) == {"o/d/e"}

    def test_an_implied_directory_that_hides_its_contents_keeps_its_attributes(self, tmp_path: Path) -> None:
        """Of a layer with "d/.wh..wh..opq" and no entry for d."""
        low = self.tree(tmp_path / "low", "d/", "d/e/", "d/e/f")
        (low / "d").chmod(0o700)
        (low / "d/e").chmod(0o700)
        top = self.tree(tmp_path / "top", "d/", "d/e/", "d/!")
        trees = [
            implied.LayerTree(top, frozenset({"", "d", "d/e"}), frozenset({"d"})),
            implied.LayerTree(low, frozenset()),
        ]
        assert {path: oct(found.mode) for path, found in implied.wrong(trees).items()} == {"d": "0o700"}

    def test_implied_directories_follow_the_topmost_layer_that_names_them(self, tmp_path: Path) -> None:
        low = self.tree(tmp_path / "low", "d/", "d/e/", "x/", "w/")
        (low / "d").chmod(0o700)
        (low / "x").chmod(0o711)
        os.chown(low / "d/e", 5, 6)
        mid = self.tree(tmp_path / "mid", "x/", "!w")
        top = self.tree(tmp_path / "top", "d/", "d/e/", "d/e/f", "x/", "w/")
        trees = [
            implied.LayerTree(top, frozenset({"", "d", "d/e", "x", "w"})),
            implied.LayerTree(mid, frozenset({""})),
            implied.LayerTree(low, frozenset()),
        ]
        found = implied.wrong(trees)
        assert {path: (oct(item.mode), item.uid, item.gid) for path, item in found.items()} == {
            "d": ("0o700", 0, 0),
            "d/e": ("0o755", 5, 6),
        }
        made = tmp_path / "repair"
        made.mkdir()
        assert implied.make_repair(made, trees, found) == 3
        assert oct((made / "d").stat().st_mode & 0o777) == "0o700"
        assert ((made / "d/e").stat().st_uid, (made / "d/e").stat().st_gid) == (5, 6)
        assert implied.wrong([implied.LayerTree(made, frozenset()), *trees]) == {}
