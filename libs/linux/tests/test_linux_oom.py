"""Score adjustments for the kernel's OOM killer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from triptych_linux import oom


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    found = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    yield found
    for each in found:
        each.kill()
        each.wait()


def adjustment(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_a_process_follows_another(sleepers: list[subprocess.Popen[bytes]]) -> None:
    model, child = sleepers
    wanted = adjustment(child.pid) + 1
    Path(f"/proc/{model.pid}/oom_score_adj").write_text(str(wanted))
    oom.follow(child.pid, model.pid)
    assert adjustment(child.pid) == wanted


def test_one_that_is_gone_is_not_followed(sleepers: list[subprocess.Popen[bytes]]) -> None:
    gone, child = sleepers
    before = adjustment(child.pid)
    gone.kill()
    gone.wait()
    oom.follow(child.pid, gone.pid)
    oom.follow(gone.pid, child.pid)
    assert adjustment(child.pid) == before
