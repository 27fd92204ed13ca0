from __future__ import annotations

import subprocess
import sys

import pytest
from triptych_dev import leftovers
from triptych_dev.leftovers import Marks


def marks(*texts: str) -> Marks:
    return Marks({*texts}, bridge="nobridge0")


def test_a_snapshot_sees_this_process() -> None:
    state = leftovers.snapshot()
    assert "lo" in state["links"]
    assert "/" in state["mounts"]
    assert any(sys.executable.rsplit("/", 1)[-1] in process for process in state["processes"])
    assert "/run" not in state["directories"]


def test_what_bears_a_mark_is_ours_and_the_rest_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_SETTLE_SECONDS", 0.3)
    before = leftovers.snapshot()
    ours = subprocess.Popen(["sleep", "1234.5"])
    other = subprocess.Popen(["sleep", "4321.5"])
    try:
        found = leftovers.compare(before, marks("1234.5"))
        assert [process for process in found.ours["processes"] if "1234.5" in process]
        assert [process for process in found.others["processes"] if "4321.5" in process]
        assert not found.clean
        assert "1234.5" in leftovers.describe(found)
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()
    assert leftovers.compare(before, marks("1234.5")).clean


def test_links_are_ours_by_name() -> None:
    known = marks("demo")
    known.links.add("veth1")
    assert known.owns("links", "veth1")
    assert known.owns("links", "nobridge0")
    assert not known.owns("links", "veth-demo")
    assert known.owns("mounts", "/run/demo/ns/net")
