from __future__ import annotations

import os
from pathlib import Path

import pytest
from triptych_dev.testing.descriptors import count_descriptors
from triptych_errors import FailedPrecondition
from triptych_runtime.spec.rootfs import RootfsView, open_in_root


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Three layers, topmost first."""
    made = [tmp_path / name for name in ("top", "middle", "bottom")]
    for layer in made:
        (layer / "etc").mkdir(parents=True)
    return made


def test_topmost_wins(layers: list[Path]) -> None:
    top, middle, bottom = layers
    (bottom / "etc/passwd").write_text("bottom")
    (bottom / "etc/group").write_text("group")
    (middle / "etc/passwd").write_text("middle")
    view = RootfsView(layers)
    assert view.read("/etc/passwd") == b"middle"
    assert view.read("/etc/group") == b"group"
    (top / "etc/passwd").write_text("top")
    assert view.read("/etc/passwd") == b"top"
    assert view.read("/etc/shadow") is None
    assert view.read("/etc/passwd/x") is None
    assert view.read("/no/such") is None


def test_absolute_and_parent_links_stay_inside(layers: list[Path], tmp_path: Path) -> None:
    top, middle, bottom = layers
    (tmp_path / "secret").write_text("outside")
    (bottom / "nix").mkdir()
    (bottom / "nix/passwd").write_text("inside")
    (top / "etc/passwd").symlink_to("/nix/passwd")
    (middle / "etc/up").symlink_to("../../../../nix/passwd")
    (middle / "etc/out").symlink_to("../../secret")
    (middle / "etc/far").symlink_to(str(tmp_path / "secret"))
    view = RootfsView(layers)
    assert view.read("/etc/passwd") == b"inside"
    assert view.read("/etc/up") == b"inside"
    assert view.read("/etc/out") is None
    assert view.read("/etc/far") is None
    assert view.read("../../secret") is None


def test_a_linked_directory(layers: list[Path]) -> None:
    top, middle, bottom = layers
    (bottom / "usr/etc").mkdir(parents=True)
    (bottom / "usr/etc/passwd").write_text("linked")
    for layer in layers:
        (layer / "etc").rmdir()
    (middle / "etc").symlink_to("usr/etc")
    assert RootfsView(layers).read("/etc/passwd") == b"linked"
    assert RootfsView(layers).read("/usr/./etc/../etc/passwd") == b"linked"
    assert top.exists()


def test_a_file_hides_a_directory_below(layers: list[Path]) -> None:
    top, _, bottom = layers
    (bottom / "etc/passwd").write_text("hidden")
    (top / "etc").rmdir()
    (top / "etc").write_text("a file")
    assert RootfsView(layers).read("/etc/passwd") is None
    assert RootfsView(layers).read("/etc") == b"a file"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_whiteouts_and_opaque_directories(layers: list[Path]) -> None:
    top, middle, bottom = layers
    (bottom / "etc/passwd").write_text("bottom")
    (bottom / "etc/group").write_text("bottom")
    os.mknod(middle / "etc/passwd", 0o600 | 0o020000, os.makedev(0, 0))
    assert RootfsView(layers).read("/etc/passwd") is None
    os.setxattr(top / "etc", "trusted.overlay.opaque", b"y")
    assert RootfsView(layers).read("/etc/group") is None
    assert RootfsView(layers[1:]).read("/etc/group") == b"bottom"


def test_what_is_no_regular_file(layers: list[Path]) -> None:
    top = layers[0]
    os.mkfifo(top / "etc/fifo")
    (top / "etc/loop").symlink_to("loop")
    (top / "etc/large").write_bytes(b"x" * 11)
    view = RootfsView(layers)
    with pytest.raises(FailedPrecondition, match="not a regular file"):
        view.read("/etc/fifo")
    with pytest.raises(FailedPrecondition, match="loop of symbolic links"):
        view.read("/etc/loop")
    with pytest.raises(FailedPrecondition, match="longer than 10 bytes"):
        view.read("/etc/large", limit=10)
    with pytest.raises(FailedPrecondition, match="is a directory"):
        view.read("/etc")


def test_missing_layers_are_empty(tmp_path: Path) -> None:
    assert RootfsView([tmp_path / "none"]).read("/etc/passwd") is None


def test_no_descriptor_is_left_open(layers: list[Path]) -> None:
    (layers[2] / "etc/passwd").write_text("x")
    before = count_descriptors()
    RootfsView(layers).read("/etc/passwd")
    RootfsView(layers).read("/etc/none")
    assert count_descriptors() == before


def test_open_in_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("x")
    (tmp_path / "link").symlink_to("/a/file")
    with open_in_root(tmp_path, "/link") as fd:
        assert Path(f"/proc/self/fd/{fd}").resolve() == tmp_path / "a/file"
    with pytest.raises(FileNotFoundError), open_in_root(tmp_path, "/none"):
        pass
