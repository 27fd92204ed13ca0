"""The pytest plugin: markers, skips and the live fixtures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Imported here so that it is not while a report is written: CPython 3.11 (gh-106905) may then fail.
import hypothesis.internal.observability  # noqa: F401
import pytest

from triptych_dev.testing import needs, turns

if TYPE_CHECKING:
    from triptych_dev.leftovers import Marks
    from triptych_dev.stack import Registry, Stack

_TURNS = 50


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers of this plugin."""
    config.addinivalue_line(
        "markers",
        "requires(*programs): needs programs of other packages; skipped without them, and failed in CI",
    )
    if os.environ.get("TRIPTYCH_TELL_AT_ONCE"):
        config.pluginmanager.register(_TellsAtOnce(config))


class _TellsAtOnce:
    """Shows a failure when it happens: a run of hours may be cut off before its summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write_line(f"\n{report.longreprtext}\n{report.capstderr}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this host cannot run, saying which package is missing."""
    if item.get_closest_marker("integration") is not None and os.geteuid() != 0:
        pytest.skip("needs root")
    wanted = [program for marker in item.iter_markers("requires") for program in marker.args]
    demand(*wanted)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip for want of a package is a failure, however the test came to it."""
    report = yield
    if report.skipped and needs.strict() and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2])
        if needs.wants_package(reason):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: a skip that CI does not allow: {reason}"
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Pants runs file by file: one in which nothing is selected is no failure there."""
    nothing = exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
    if nothing and os.environ.get("TRIPTYCH_TIER") == "pants":
        session.exitstatus = pytest.ExitCode.OK


def demand(*programs: str) -> None:
    """Skip the running test unless all programs are there; in CI fail it."""
    absent = needs.missing(programs)
    if not absent:
        return
    if needs.strict():
        pytest.fail(needs.reason(absent), pytrace=False)
    pytest.skip(needs.reason(absent))


@pytest.fixture(scope="session")
def live_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry on loopback, for the whole session; push with `ociimages.Pusher`."""
    from triptych_dev.stack import Registry

    demand("docker-registry")
    registry = Registry(tmp_path_factory.mktemp("registry"))
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="session")
def live_image(live_registry: Registry) -> str:
    """The reference of a small image in the live registry: busybox in three layers, as a manifest list."""
    from triptych_dev.demo import image

    demand("busybox")
    return image.push(live_registry.host)


@pytest.fixture(scope="session")
def live_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The three daemons, isolated, for the whole session.

    A test that stops or kills a daemon starts it again.
    """
    from triptych_dev.stack import Stack

    demand(*needs.LIVE)
    turn = turns.take(_TURNS, lambda number: Path(f"/run/live{number}-test").exists())
    stack = Stack(
        Path(tmp_path_factory.mktemp("live")),
        f"live{turn}-test",
        f"10.{200 + turn}.0.0/16",
        {"streaming": {"http": {"listen": "127.0.0.1:0"}}},
    )
    stack.write_configuration()
    try:
        stack.start()
        yield stack
    finally:
        stack.clean()
        shutil.rmtree(stack.root, ignore_errors=True)


@pytest.fixture
def leak_check(live_stack: Stack) -> Iterator[Marks]:
    """Fail the test when it leaves links, mounts, cgroups, rules or processes of the live daemons behind.

    Tell the fixture the IDs of pods and containers with `learn` while they run.
    """
    from triptych_dev import leftovers

    def expected(kind: str, thing: str) -> bool:
        """The daemons themselves, perhaps restarted; and the bridge, which stays for the next pod."""
        daemons = tuple(f"{process.popen.pid} (" for process in live_stack.processes.values())
        return thing.startswith(daemons) if kind == "processes" else thing == live_stack.bridge

    before = leftovers.snapshot()
    texts = {str(live_stack.root), str(live_stack.state)}
    marks = leftovers.Marks(texts, live_stack.bridge, expected=expected)
    yield marks
    difference = leftovers.compare(before, marks)
    if not difference.clean:
        pytest.fail(f"left behind: {leftovers.describe(difference)}")
