"""What checkpoints hold still goes on, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from triptych_runtime.checkpoint.pauses import Pauses
from triptych_runtime.ociruntime import OciRuntime


class Simulated:
    """An OCI runtime with one container."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.fails = False

    async def state(self, container_id: str) -> dict[str, Any]:
        return {"id": container_id, "status": self.status}

    async def resume(self, container_id: str) -> None:
        if self.fails:
            raise OSError("no resume")
        self.status = "running"


@pytest.mark.parametrize("before", ["running", "paused"])
async def test_a_container_is_afterwards_as_it_was(tmp_path: Path, before: str) -> None:
    pauses, simulated = Pauses(tmp_path / "pauses"), Simulated(before)
    async with pauses.held(cast(OciRuntime, simulated), "c"):
        assert pauses.marked() == ["c"] * (before == "running")
        simulated.status = "paused"
    assert simulated.status == before
    assert pauses.marked() == []


async def test_one_that_could_not_go_on_does_so_after_the_next_checkpoint(tmp_path: Path) -> None:
    pauses, simulated = Pauses(tmp_path), Simulated("running")
    simulated.fails = True
    with pytest.raises(OSError, match="no resume"):
        async with pauses.held(cast(OciRuntime, simulated), "c"):
            simulated.status = "paused"
    assert pauses.marked() == ["c"]
    simulated.fails = False
    async with pauses.held(cast(OciRuntime, simulated), "c"):
        pass
    assert simulated.status == "running"
    assert pauses.marked() == []
