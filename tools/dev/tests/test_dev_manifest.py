"""What an installation remembers, and how it treats files that an operator edited."""

from __future__ import annotations

from pathlib import Path

import pytest
from triptych_dev.node import manifest
from triptych_dev.node.errors import NotPossible
from triptych_dev.node.manifest import Kind, Manifest

CONFIG = Path("/etc/triptych/image.toml")
LIST = Path("/opt/triptych/install.json")


def _again(root: Path) -> Manifest:
    document = manifest.load(root, LIST)
    assert document is not None
    return Manifest(root, {entry.path: entry for entry in document.entries})


def test_an_untouched_configuration_file_is_replaced(tmp_path: Path) -> None:
    first = Manifest(tmp_path)
    first.write(CONFIG, b"old", Kind.CONFIG)
    first.save(LIST, "1", Path("/opt/triptych"))
    second = _again(tmp_path)
    second.write(CONFIG, b"new", Kind.CONFIG)
    assert (tmp_path / "etc/triptych/image.toml").read_bytes() == b"new"
    assert second.kept == []


def test_an_edited_configuration_file_is_kept_through_upgrades(tmp_path: Path) -> None:
    first = Manifest(tmp_path)
    first.write(CONFIG, b"old", Kind.CONFIG)
    first.save(LIST, "1", Path("/opt/triptych"))
    edited = tmp_path / "etc/triptych/image.toml"
    edited.write_bytes(b"mine")
    for version in ("2", "3"):
        upgrade = _again(tmp_path)
        upgrade.write(CONFIG, version.encode(), Kind.CONFIG)
        upgrade.save(LIST, version, Path("/opt/triptych"))
        assert edited.read_bytes() == b"mine"
        assert edited.with_name("image.toml.new").read_bytes() == version.encode()
        assert upgrade.kept == [CONFIG]
    assert {entry.path for entry in _again(tmp_path).before.values()} == {str(CONFIG), f"{CONFIG}.new"}


def test_a_file_from_before_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "etc/triptych/image.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"from elsewhere")
    record = Manifest(tmp_path)
    record.write(CONFIG, b"ours", Kind.CONFIG)
    assert path.read_bytes() == b"from elsewhere"
    assert record.kept == [CONFIG]


def test_a_link_replaces_a_link_and_nothing_else(tmp_path: Path) -> None:
    record = Manifest(tmp_path)
    command = Path("/usr/local/bin/triptych")
    record.link(command, Path("/old/triptych"), Kind.PROGRAM)
    record.link(command, Path("/opt/triptych/bin/triptych"), Kind.PROGRAM)
    there = tmp_path / "usr/local/bin/triptych"
    assert there.readlink() == Path("/opt/triptych/bin/triptych")
    there.unlink()
    there.write_text("somebody's program")
    with pytest.raises(NotPossible, match="is not ours"):
        record.link(command, Path("/opt/triptych/bin/triptych"), Kind.PROGRAM)


def test_a_damaged_list_is_named(tmp_path: Path) -> None:
    path = tmp_path / "opt/triptych/install.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(NotPossible, match="install.json"):
        manifest.load(tmp_path, LIST)
    assert manifest.load(tmp_path, Path("/opt/other/install.json")) is None


def test_what_a_new_version_no_longer_has_goes_away(tmp_path: Path) -> None:
    unit, dropped = Path("/etc/systemd/system/a.service"), Path("/etc/systemd/system/b.service")
    first = Manifest(tmp_path)
    for path in (unit, dropped):
        first.write(path, b"[Service]", Kind.UNIT)
    first.write(CONFIG, b"", Kind.CONFIG)
    first.save(LIST, "1", Path("/opt/triptych"))
    second = _again(tmp_path)
    second.write(unit, b"[Service]", Kind.UNIT)
    second.save(LIST, "2", Path("/opt/triptych"))
    assert not (tmp_path / "etc/systemd/system/b.service").exists()
    assert set(_again(tmp_path).before) == {str(unit), str(CONFIG)}
