"""memory.oom.group stays as it was asked for, whoever writes to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from runtime.v1.api_pb2 import LinuxContainerResources
from triptych_dev.patience import PATIENCE
from triptych_runtime.cgroups import Cgroup, Layout, Mode
from triptych_runtime.cgroups.groupkill import FILE, GroupKills

GROUP = "kubepods.slice:triptych:a"
TOGETHER = LinuxContainerResources(unified={FILE: "1"})


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """The file, as the OCI runtime left it."""
    file = tmp_path / "scope" / FILE
    file.parent.mkdir()
    file.write_text("1\n")
    return file


@pytest.fixture
async def kills(tmp_path: Path) -> AsyncIterator[GroupKills]:
    layout = Layout(Mode.UNIFIED, {}, tmp_path, {})
    made = GroupKills(lambda path: Cgroup.at(layout, "/scope"), enabled=True)
    yield made
    made.close()


async def becomes(file: Path, value: str) -> None:
    end = time.monotonic() + 20 * PATIENCE
    while file.read_text()[:1] != value:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_what_is_cleared_is_set_again(kills: GroupKills, control: Path) -> None:
    kills.keep(GROUP, TOGETHER)
    for _ in range(3):
        control.write_text("0\n")
        await becomes(control, "1")


async def test_what_was_cleared_meanwhile_is_set_at_once(kills: GroupKills, control: Path) -> None:
    control.write_text("0\n")
    kills.keep(GROUP, TOGETHER)
    assert control.read_text()[:1] == "1"


@pytest.mark.parametrize(
    "resources", [None, LinuxContainerResources(), LinuxContainerResources(unified={FILE: "0"})]
)
async def test_who_did_not_ask_is_left_alone(
    kills: GroupKills, control: Path, resources: LinuxContainerResources | None
) -> None:
    kills.keep(GROUP, TOGETHER)
    kills.keep(GROUP, resources)
    control.write_text("0\n")
    await asyncio.sleep(0.05)
    assert control.read_text() == "0\n"


async def test_a_container_that_ended_is_forgotten(kills: GroupKills, control: Path) -> None:
    kills.keep(GROUP, TOGETHER)
    kills.drop(GROUP)
    kills.drop(GROUP)
    control.write_text("0\n")
    await asyncio.sleep(0.05)
    assert control.read_text() == "0\n"


async def test_a_cgroup_that_is_gone_is_no_error(kills: GroupKills, control: Path) -> None:
    control.unlink()
    kills.keep(GROUP, TOGETHER)
    kills.drop(GROUP)


async def test_without_systemd_nothing_is_written(tmp_path: Path, control: Path) -> None:
    layout = Layout(Mode.UNIFIED, {}, tmp_path, {})
    idle = GroupKills(lambda path: Cgroup.at(layout, "/scope"), enabled=False)
    control.write_text("0\n")
    idle.keep(GROUP, TOGETHER)
    assert control.read_text() == "0\n"
    idle.close()
