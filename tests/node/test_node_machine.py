"""`./dev test node`: a virtual machine with Debian 12, systemd and cgroup v2.

Needs root, debootstrap and qemu-system-x86_64, and works without KVM. The image is built once (see
triptych_dev.vm.recipe) and kept under .dev/node; files that a run brings back are under .dev/node/results.
"""

from __future__ import annotations

import os
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from triptych_dev.node.shell import CHECKOUT_ROOT
from triptych_dev.packaging import wheels
from triptych_dev.vm import MachineOptions, Outcome, ensure_image, make_payload, run_job

pytestmark = [
    pytest.mark.node,
    pytest.mark.requires("debootstrap", "qemu-system-x86_64", "mke2fs"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.timeout(3 * 3600),
]

CACHE = CHECKOUT_ROOT / ".dev/node"
PYTEST = ".venv/bin/python -m pytest -p no:cacheprovider --timeout 900"

SUITE = f"""\
export TRIPTYCH_PATIENCE=10
# Builds need a package index, and the node has no network.
{PYTEST} -v -m "integration and not node" --ignore=tools/dev/tests --durations=30 \\
    --junit-xml="$RESULTS/junit.xml" 2>&1 | tee "$RESULTS/pytest.txt"
exit ${{PIPESTATUS[0]}}
"""

LIFE = f"""\
export TRIPTYCH_NODE_INSIDE=1
inside() {{ {PYTEST} -v "tests/node/inside/$1.py" --junit-xml="$RESULTS/$1.xml" || exit 1; }}
case $STAGE in
0)
    .venv/bin/python -m triptych_dev install --wheels /payload/wheels --offline || exit 1
    inside before_reboot
    exit 194
    ;;
*) inside after_reboot ;;
esac
"""

Run = Callable[[str, str], Outcome]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Run:
    """Runs a job of a name in a fresh machine."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stdout.write(f"  | {line}\n")
            sys.stdout.flush()

    image = ensure_image(CACHE, say)
    dist = tmp_path_factory.mktemp("dist")

    def run(name: str, job: str) -> Outcome:
        disk = CACHE / f"{name}.payload"
        extra: dict[str, Path] = {}
        if "/payload/wheels" in job:
            wheels.build(dist)
            wheels.add_dependencies(dist)
            extra["wheels"] = dist / "wheels"
        try:
            make_payload(CHECKOUT_ROOT, job, disk, extra)
            return run_job(image, disk, CACHE / "results" / name, MachineOptions(), say)
        finally:
            disk.unlink(missing_ok=True)
            shutil.rmtree(dist / "wheels", ignore_errors=True)

    return run


def failures(outcome: Outcome) -> list[str]:
    """Names of the failed tests in every JUnit file that came back."""
    reports = sorted(outcome.results.glob("*.xml"))
    cases = [case for report in reports for case in ElementTree.parse(report).iter("testcase")]
    bad = (case for case in cases if case.find("failure") is not None or case.find("error") is not None)
    return [f"{case.get('classname')}::{case.get('name')}" for case in bad]


def test_the_life_of_a_node(machine: Run) -> None:
    """Install, pods in slices, restarts under load, kill -9, AppArmor, reboot, uninstall."""
    outcome = machine("life", LIFE)
    assert (outcome.status, failures(outcome)) == (0, []), f"see {outcome.results}"
    assert (outcome.results / "after_reboot.xml").exists()


def test_the_integration_suite(machine: Run) -> None:
    """Every integration test, with the systemd cgroup driver and cgroup v2."""
    outcome = machine("suite", SUITE)
    assert (outcome.status, failures(outcome)) == (0, []), f"see {outcome.results}"
    assert (outcome.results / "junit.xml").exists()
