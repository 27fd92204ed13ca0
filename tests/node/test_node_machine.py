"""`./dev test node`: a virtual machine with Debian 12, systemd and cgroup v2.

Needs root, debootstrap and qemu-system-x86_64, and works without KVM. The image is built once (see
triptych_dev.vm.recipe) and kept under .dev/node; files that a run brings back are under .dev/node/results.

The suite is not run whole in there, but what a kernel and an init system make a difference to (SUITE_PATHS):
everything about pods, containers, streams, cgroups, namespaces and root filesystems.
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
    pytest.mark.timeout(6 * 3600),
]

CACHE = CHECKOUT_ROOT / ".dev/node"
PATIENCE = 10
DEADLINE = 3 * 3600.0
# Debian 12's Python 3.11.2 may fail to parse the sources that a longer traceback shows (gh-106905).
PYTEST = ".venv/bin/python -m pytest -p no:cacheprovider --color=no --tb=native"

# What a node's kernel and init system decide. Pulls, archives, policies, documents and measurements are the
# same everywhere, and take hours on an emulated processor. What differs most comes first.
SUITE_PATHS = (
    "services/runtime/tests",
    "tests/integration",
    "tests/conformance",
    "services/streaming/tests",
    "libs/linux/tests",
    "services/image/tests/rootfs",
    "services/image/tests/unpack",
    "services/image/tests/daemon/test_image_daemon.py",
)
BEFORE_REBOOT = ("before_reboot", "streams", "confinement", "limits", "quota", "leave")
NOT_HERE = (
    # Clients of others, which are not carried into the node.
    "services/streaming/tests/test_streaming_clients.py",
    # Ten thousand sessions.
    "services/streaming/tests/test_streaming_leaks.py",
    # How long callbacks of the loops take, and 110 pods at once.
    "tests/integration/test_event_loop.py",
    "tests/integration/test_many_pods.py",
)
TOO_MANY = "services/runtime/tests/test_network_plugins.py::test_110_pods_at_once"
"""One more: namespaces of 110 pods take an emulated processor longer than they may."""
ONLY_HERE = frozenset({"test_checkpoint_a_container", "test_checkpoint_and_restore_a_pod"})
"""Tests of the suite that other machines may skip, and this one must not."""


def suite_files() -> list[str]:
    """Files with integration tests: even to look into the others takes minutes in there."""
    found = [CHECKOUT_ROOT / path for path in SUITE_PATHS]
    files = [file for path in found for file in (sorted(path.rglob("test_*.py")) or [path])]
    names = [
        str(file.relative_to(CHECKOUT_ROOT)) for file in files if "mark.integration" in file.read_text()
    ]
    return [name for name in names if name not in NOT_HERE]


SUITE = f"""\
export TRIPTYCH_PATIENCE={PATIENCE} TRIPTYCH_TELL_AT_ONCE=1
{PYTEST} -v -o timeout={120 * PATIENCE} -m "integration and not node" {" ".join(suite_files())} \\
    --deselect {TOO_MANY} \\
    --durations=30 --junit-xml="$RESULTS/junit.xml" 2>&1 | tee "$RESULTS/pytest.txt"
exit ${{PIPESTATUS[0]}}
"""

LIFE = f"""\
export TRIPTYCH_NODE_INSIDE=1 TRIPTYCH_PATIENCE={PATIENCE}
# One process for the modules of a stage: a registry that they share, and one start of Python.
inside() {{
    report=$1
    shift
    {PYTEST} -v --timeout 1800 "${{@/#/tests/node/inside/}}" --junit-xml="$RESULTS/$report.xml" || exit 1
}}
case $STAGE in
0)
    # Starts and stops take their multiple too; what systemd does when one fails is tested by kills.
    for daemon in image runtime streaming; do
        drop_ins=/usr/local/lib/systemd/system/triptych-$daemon.service.d
        mkdir -p $drop_ins
        printf '[Service]\\nTimeoutStartSec=900s\\nTimeoutStopSec=300s\\n' >$drop_ins/10-patience.conf
    done
    mkdir -p /etc/triptych/runtime.toml.d
    printf '[deadlines]\\nstreaming = 300\\n' >/etc/triptych/runtime.toml.d/10-patience.toml
    .venv/bin/python -m triptych_dev install --wheels /payload/wheels --offline || exit 1
    inside before_reboot {" ".join(f"{name}.py" for name in BEFORE_REBOOT)}
    exit 194
    ;;
*) inside after_reboot after_reboot.py ;;
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
            return run_job(image, disk, CACHE / "results" / name, MachineOptions(deadline=DEADLINE), say)
        finally:
            disk.unlink(missing_ok=True)
            shutil.rmtree(dist / "wheels", ignore_errors=True)

    return run


def cases(outcome: Outcome, *kinds: str) -> list[str]:
    """Names of the tests that ended so, in every JUnit file that came back."""
    reports = sorted(outcome.results.glob("*.xml"))
    found = [case for report in reports for case in ElementTree.parse(report).iter("testcase")]
    ended = (case for case in found if any(case.find(kind) is not None for kind in kinds))
    return [f"{case.get('classname')}::{case.get('name')}" for case in ended]


def test_the_life_of_a_node(machine: Run) -> None:
    """Install, pods in slices, restarts under load, kill -9, AppArmor, reboot, uninstall."""
    outcome = machine("life", LIFE)
    assert (outcome.status, cases(outcome, "failure", "error")) == (0, []), f"see {outcome.results}"
    assert cases(outcome, "skipped") == []
    assert (outcome.results / "after_reboot.xml").exists()


def test_the_integration_suite(machine: Run) -> None:
    """The integration tests that a node makes a difference to, with cgroup v2 and the systemd driver."""
    outcome = machine("suite", SUITE)
    assert (outcome.status, cases(outcome, "failure", "error")) == (0, []), f"see {outcome.results}"
    skipped = {name.rpartition("::")[2] for name in cases(outcome, "skipped")}
    assert skipped & ONLY_HERE == set()
    assert (outcome.results / "junit.xml").exists()
