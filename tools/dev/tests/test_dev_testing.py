from __future__ import annotations

import pytest
from triptych_dev.testing import needs
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
