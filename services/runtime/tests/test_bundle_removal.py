"""Removing a bundle, whatever else goes on in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runtime.v1 import api_pb2
from triptych_runtime.bundles import remove_bundle, write_bundle
from triptych_runtime.errors import RuntimeFailed
from triptych_runtime.spec import ContainerSpec
from triptych_runtime.spec.inputs import AnonymousVolume, ResolvedUser, StopSignal


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


def test_a_bundle_that_was_taken_back_is_not_written(tmp_path: Path) -> None:
    """By a thread that hung in the making of a host path, on storage that has come back."""
    volume = AnonymousVolume(tmp_path / "volumes" / "data", "/data")
    signal = StopSignal(15, "SIGTERM", api_pb2.SIGNAL_SIGTERM)
    host_path = tmp_path / "made"
    spec = ContainerSpec(
        {}, ResolvedUser(0, 0), signal, directories=(host_path,), anonymous_volumes=(volume,)
    )
    with pytest.raises(RuntimeFailed, match="taken back"):
        write_bundle(tmp_path / "bundle", tmp_path / "bundle" / "rootfs", spec)
    assert list(tmp_path.iterdir()) == [host_path]
