from __future__ import annotations

import os
from pathlib import Path

import pytest
from triptych_dev.stack_cgroups import remove_cgroups
from triptych_dev.testing import needs, turns
from triptych_dev.testing.plugin import demand


def test_what_is_there_is_demanded_in_vain() -> None:
    assert needs.missing(["sh", "nothing-like-this"]) == ["nothing-like-this"]
    demand("sh")


def test_a_missing_program_skips_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "present", lambda program: False)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install containernetworking-plugins criu"):
        demand("criu", "portmap", "bridge")


def test_in_ci_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "present", lambda program: False)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="missing here: criu"):
        demand("criu")
    monkeypatch.setenv("CI", "false")
    assert not needs.strict()


@pytest.mark.parametrize(
    ("reason", "wants"),
    [
        ("Skipped: missing here: criu; apt-get install criu", True),
        ("Skipped: crun is not installed", True),
        ("Skipped: needs docker-registry", True),
        ("Skipped: needs root", True),
        ("Skipped: systemd is not the init here", False),
        ("Skipped: needs the kernel's tbf and ifb (package linux-image)", False),
        ("Skipped: this kernel does not mount ext4 with quota", False),
    ],
)
def test_which_skips_want_a_package(reason: str, wants: bool) -> None:
    assert needs.wants_package(reason) is wants


def test_sessions_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_LOCKS", tmp_path)
    taken = [turns.take(4, lambda number: number == 2) for _ in range(3)]
    assert sorted(taken) == [0, 1, 3]
    with pytest.raises(RuntimeError, match="all 4 numbers"):
        turns.take(4, lambda number: number == 2)


@pytest.mark.integration
def test_cgroups_of_other_stacks_stay() -> None:
    ours, theirs = f"{os.getpid():064x}", f"{os.getpid() + 1:064x}"
    top = next(d for d in Path("/sys/fs/cgroup").glob("*") if (d / "cgroup.procs").exists()) / "triptych"
    for pod in (ours, theirs):
        (top / pod / "container").mkdir(parents=True)
    try:
        remove_cgroups({ours})
        assert not (top / ours).exists()
        assert (top / theirs / "container").is_dir()
    finally:
        remove_cgroups({theirs})
    assert not (top / theirs).exists()
