"""The entry `./dev` itself, with what is installed already."""

from __future__ import annotations

import os
import subprocess

import pytest
from triptych_dev import tiers
from triptych_dev.node.shell import CHECKOUT_ROOT


def dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CHECKOUT_ROOT / "dev"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TRIPTYCH_DEV_OFFLINE": "1"},
    )


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run."""
    found: list[list[str]] = []

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        found.append(argv[3:])
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr("triptych_dev.tiers.subprocess.run", run)
    return found


def test_help_lists_every_command() -> None:
    done = dev("--help")
    assert done.returncode == 0, done.stderr
    for name in ("demo", "test", "bench", "gen", "check", "doctor", "install"):
        assert f"\n  {name} " in done.stdout


def test_a_wrong_command_is_told_the_right_one() -> None:
    done = dev("dmeo")
    assert done.returncode == 2
    assert 'Did you mean "demo"?' in done.stderr


def test_help_of_benchmarks_and_of_one_are_two() -> None:
    assert "Usage: ./dev bench" in dev("bench", "--help").stdout
    assert "bench_pods.py" in dev("bench", "pods", "--help").stdout


def test_an_unknown_benchmark_lists_those_there_are() -> None:
    done = dev("bench", "nothing")
    assert done.returncode == 2
    assert "is not one of 'pods', 'pull'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["-m", "not node"]),
        (("unit", "-k", "reference"), ["-m", "not integration and not node", "-k", "reference"]),
        (("conformance", "-x"), ["-m", "not node", "-x", "tests/conformance"]),
        (("conformance", "tests/repo"), ["-m", "not node", "tests/repo"]),
        (
            ("tests/repo/test_repo_stubs.py::test_x",),
            ["-m", "not node", "tests/repo/test_repo_stubs.py::test_x"],
        ),
    ],
)
def test_tiers(ran: list[list[str]], arguments: tuple[str, ...], expected: list[str]) -> None:
    assert tiers.test.main(list(arguments), standalone_mode=False) == 0
    assert ran == [expected]
