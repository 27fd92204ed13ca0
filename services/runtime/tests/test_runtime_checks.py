"""What the runtime daemon refuses in its settings, and what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from triptych_runtime.cgroups import manager
from triptych_runtime.checks import check
from triptych_runtime.settings import CgroupDriverSetting, HandlerSettings, Settings
from triptych_service.config import load
from triptych_service.errors import ConfigError


@pytest.mark.parametrize("name", ["", "crun", "runc"])
def test_a_handler_that_there_is_may_be_the_default(name: str) -> None:
    assert not list(check(Settings(default_handler=name)))


def test_a_default_handler_that_nobody_configured_or_that_is_off_is_told() -> None:
    (unknown,) = check(Settings(default_handler="gvisor"))
    assert (unknown.key, unknown.text) == (
        "default_handler",
        "expected one of 'crun', 'runc', got 'gvisor', which is not in [handlers]",
    )
    handlers = {"crun": HandlerSettings(enabled=False), "runc": HandlerSettings()}
    (off,) = check(Settings(default_handler="crun", handlers=handlers))
    assert off.text == "expected one of 'runc', got 'crun', which is turned off"


def test_the_systemd_driver_needs_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(cgroup_driver=CgroupDriverSetting.SYSTEMD)
    monkeypatch.setattr(manager, "_SYSTEMD_RUNS", tmp_path)
    assert not list(check(settings))
    monkeypatch.setattr(manager, "_SYSTEMD_RUNS", tmp_path / "none")
    assert [problem.key for problem in check(settings)] == ["cgroup_driver"]
    assert not list(check(Settings()))


def test_a_log_level_that_conmon_does_not_know_is_told(tmp_path: Path) -> None:
    file = tmp_path / "runtime.toml"
    file.write_text('conmon_log_level = "loud"\n')
    with pytest.raises(ConfigError, match='`conmon_log_level`: expected one of "trace", "debug", "info"'):
        load(Settings, file, must_exist=True)
