"""Removing a bundle, whatever else goes on in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from triptych_runtime.bundles import remove_bundle


def test_what_goes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As conmon's attach socket does, when the monitor ends while the bundle is removed."""
    bundle = tmp_path / "bundle"
    (bundle / "image-volumes").mkdir(parents=True)
    for name in ("attach", "ctl", "config.json"):
        (bundle / name).touch()
    unlink = os.unlink
    taken: list[str] = []

    def beaten(path: str, *, dir_fd: int | None = None) -> None:
        unlink(path, dir_fd=dir_fd)
        if not taken:
            taken.append(path)
            unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", beaten)
    remove_bundle(bundle, tmp_path / "volumes")
    assert taken
    assert not bundle.exists()
    remove_bundle(bundle, tmp_path / "volumes")


def test_what_comes_meanwhile_goes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the monitor's last word on the exit code does."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").touch()
    unlink = os.unlink
    left: list[Path] = []

    def followed(path: str, *, dir_fd: int | None = None) -> None:
        unlink(path, dir_fd=dir_fd)
        if not left:
            left.append(bundle / "exit")
            left[0].touch()

    monkeypatch.setattr(os, "unlink", followed)
    remove_bundle(bundle, tmp_path / "volumes")
    assert left
    assert not bundle.exists()
