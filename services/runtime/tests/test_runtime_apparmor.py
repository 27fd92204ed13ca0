"""The default AppArmor profile compiles, and denies what it is for."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from triptych_runtime import apparmor


@pytest.mark.integration
def test_the_parser_takes_it() -> None:
    parser = shutil.which("apparmor_parser")
    if parser is None:
        pytest.skip("apparmor is not installed")
    done = subprocess.run(
        [parser, "--skip-kernel-load", "--skip-cache", "--names"],
        input=apparmor.text(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [apparmor.NAME]


def test_its_rules() -> None:
    profile = apparmor.text("p", "d")
    assert "profile p flags=(attach_disconnected,mediate_deleted) {" in profile
    for rule in (
        "deny mount,",
        "deny /proc/sysrq-trigger",
        "signal (receive) peer=d,",
        "deny /sys/firmware/**",
    ):
        assert rule in profile


async def test_nothing_happens_without_apparmor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych_linux.process.run", lambda *_, **__: pytest.fail("ran a parser"))
    await apparmor.ensure_loaded(False)
