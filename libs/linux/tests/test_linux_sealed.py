"""Programs from sealed memory files."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from triptych_dev.testing.descriptors import count_descriptors
from triptych_linux import sealed


@pytest.fixture
def crun(tmp_path: Path) -> Path:
    """A small ELF program under the name of one that is known."""
    path = tmp_path / "crun"
    shutil.copy(shutil.which("true") or "/bin/true", path)
    return path


def test_a_known_program_runs_from_a_sealed_file(crun: Path) -> None:
    path = sealed.program(str(crun))
    assert path.startswith(f"/proc/{os.getpid()}/fd/")
    assert sealed.program(str(crun)) == path
    assert subprocess.run([path], check=False).returncode == 0
    with pytest.raises(OSError), open(path, "r+b") as file:
        file.write(b"x")
    descriptor = int(path.rpartition("/")[2])
    assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == 0xF
    assert not os.get_inheritable(descriptor)


def test_an_upgrade_is_followed_and_older_copies_given_back(crun: Path) -> None:
    old = sealed.program(str(crun))
    crun.unlink()
    shutil.copy(shutil.which("false") or "/bin/false", crun)
    assert sealed.program(str(crun)) != old
    assert subprocess.run([old], check=False).returncode == 0  # somebody was about to start it
    before = count_descriptors()
    for program in ("true", "false", "true"):
        crun.unlink()
        shutil.copy(shutil.which(program) or program, crun)
        assert subprocess.run([sealed.program(str(crun))], check=False).returncode == (program == "false")
    assert count_descriptors() == before


def test_others_are_started_as_they_are(tmp_path: Path) -> None:
    assert sealed.program("/usr/bin/env") == "/usr/bin/env"
    assert sealed.program("crun-that-is-not-there") == "crun-that-is-not-there"
    script = tmp_path / "crun"
    script.write_text("#!/bin/sh\nexit 0\n")
    assert sealed.program(str(script)) == str(script)
    assert sealed.program(str(tmp_path / "none/crun")) == str(tmp_path / "none/crun")


def test_where_memory_files_cannot_be_executed_programs_are_started_as_they_are(
    crun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refuse(*_: object) -> int:
        tries.append(1)
        raise PermissionError("vm.memfd_noexec")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert sealed.program(str(crun)) == sealed.program(str(crun)) == str(crun)
    assert len(tries) == 1


def test_selinux_decides_by_the_file(crun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "_SELINUX", str(tmp_path))
    assert sealed.program(str(crun)) == str(crun)
