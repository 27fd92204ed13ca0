"""conmon with real OCI runtimes: create, start, log, exit; and the exit watch."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from triptych_dev.patience import PATIENCE
from triptych_linux.pidfd import ProcessIdentity
from triptych_runtime.errors import RuntimeFailed
from triptych_runtime.model import new_id
from triptych_runtime.monitor import Conmon, Exit, ExitWatch, MonitorPaths, kill_monitor
from triptych_runtime.ociruntime import OciRuntime
from triptych_runtime.ociruntime.probe import refusal

pytestmark = pytest.mark.integration

_BUSYBOX = "/bin/busybox"


async def nowhere(pid: int) -> None:
    """Monitors of these tests stay in the test's own cgroup."""


def bundle(path: Path, args: list[str]) -> None:
    root = path / "rootfs"
    for name in ("proc", "dev", "bin"):
        (root / name).mkdir(parents=True)
    shutil.copy(_BUSYBOX, root / "bin/busybox")
    document = {
        "ociVersion": "1.0.2",
        "process": {"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
            "cgroupsPath": f"/triptych-test/{path.name}",
        },
    }
    (path / "config.json").write_text(json.dumps(document))


@pytest.fixture(params=["crun", "runc"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OciRuntime]:
    path = shutil.which(request.param)
    assert path, f"install {request.param}"
    found = OciRuntime(request.param, path, tmp_path / "oci")
    problem = await refusal(found, "/triptych-test/probe", tmp_path / "probe")
    if problem:
        pytest.fail(f"{request.param} cannot run here: {problem}")
    yield found
    for name in found.known():
        await found.delete(name)
    for directory in Path("/sys/fs/cgroup").glob("*/triptych-test"):
        for child in directory.iterdir():
            if child.is_dir():
                child.rmdir()
        directory.rmdir()


@pytest.mark.parametrize(
    ("script", "code"), [("echo out; echo err >&2; exit 3", 3), ("kill -9 $$; sleep 9", 137)]
)
async def test_life(runtime: OciRuntime, tmp_path: Path, script: str, code: int) -> None:
    identity = new_id()
    paths = MonitorPaths(tmp_path / identity)
    paths.bundle.mkdir()
    # The init of a PID namespace ignores its own SIGKILL, so the one that is killed is a child.
    bundle(paths.bundle, ["/bin/busybox", "sh", "-c", f"/bin/busybox sh -c '{script}'; exit $?"])
    exits: asyncio.Queue[Exit] = asyncio.Queue()
    watch = ExitWatch(tmp_path / "exits", exits.put_nowait, time.time_ns)
    watch.start()
    conmon = Conmon("/usr/bin/conmon", tmp_path / "exits", 20, "error", nowhere)
    log = tmp_path / "c.log"
    started = await conmon.create(
        identity, "c", runtime, paths, log_path=str(log), terminal=False, stdin=False, stdin_once=False
    )
    assert os.path.exists(f"/proc/{started.monitor_pid}")
    watch.add(identity, ProcessIdentity.of(started.pid))
    await runtime.start(identity)
    async with asyncio.timeout(10 * PATIENCE):
        found = await exits.get()
    assert (found.container_id, found.code) == (identity, code)
    assert abs(found.finished_at - time.time_ns()) < 20e9
    if code == 3:
        lines = sorted(line.split(" ", 3)[1:] for line in log.read_text().splitlines())
        assert lines == [["stderr", "F", "err"], ["stdout", "F", "out"]]
    await runtime.delete(identity)
    assert await runtime.state(identity) is None
    await runtime.delete(identity)
    watch.stop()


async def test_a_warning_of_the_runtime_is_no_line_of_the_log(runtime: OciRuntime, tmp_path: Path) -> None:
    # As runc warns of devices that systemd does not know: in its log, by default its standard error.
    wrapper = tmp_path / "warns"
    wrapper.write_text(
        "#!/bin/sh\nlog=/dev/stderr\n"
        'for word; do [ "$last" != --log ] || log=$word; last=$word; done\n'
        f'echo a warning >>"$log"\nexec {runtime.path} "$@"\n'
    )
    wrapper.chmod(0o755)
    identity = new_id()
    paths = MonitorPaths(tmp_path / identity)
    paths.bundle.mkdir()
    bundle(paths.bundle, ["/bin/busybox", "echo", "out"])
    exits: asyncio.Queue[Exit] = asyncio.Queue()
    watch = ExitWatch(tmp_path / "exits", exits.put_nowait, time.time_ns)
    watch.start()
    conmon = Conmon("/usr/bin/conmon", tmp_path / "exits", 20, "error", nowhere)
    log = tmp_path / "c.log"
    warning = replace(runtime, path=str(wrapper))
    started = await conmon.create(
        identity, "c", warning, paths, log_path=str(log), terminal=False, stdin=False, stdin_once=False
    )
    watch.add(identity, ProcessIdentity.of(started.pid))
    await runtime.start(identity)
    async with asyncio.timeout(10 * PATIENCE):
        await exits.get()
    assert [line.split(" ", 3)[1:] for line in log.read_text().splitlines()] == [["stdout", "F", "out"]]
    assert "a warning" in paths.runtime_log.read_text()
    await runtime.delete(identity)
    watch.stop()


async def test_a_missing_command_is_told(runtime: OciRuntime, tmp_path: Path) -> None:
    identity = new_id()
    paths = MonitorPaths(tmp_path / identity)
    paths.bundle.mkdir()
    bundle(paths.bundle, ["/no/such/command"])
    (tmp_path / "exits").mkdir()
    conmon = Conmon("/usr/bin/conmon", tmp_path / "exits", 20, "error", nowhere)
    with pytest.raises(RuntimeFailed, match="/no/such/command"):
        await conmon.create(
            identity, "c", runtime, paths, log_path="", terminal=False, stdin=False, stdin_once=False
        )


async def test_an_exit_without_its_file_is_still_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triptych_runtime.monitor.exits.FILE_GRACE", 0.05)
    exits: asyncio.Queue[Exit] = asyncio.Queue()
    watch = ExitWatch(tmp_path / "exits", exits.put_nowait, lambda: 42)
    watch.start()
    process = await asyncio.create_subprocess_exec("sleep", "60")
    watch.add("lost", ProcessIdentity.of(process.pid))
    assert watch.signal("lost", 9)
    await process.wait()
    async with asyncio.timeout(5 * PATIENCE):
        assert await exits.get() == Exit("lost", None, 42)
    watch.stop()


def fake_conmon(directory: Path, identity: str) -> subprocess.Popen[bytes]:
    """A process that is named and called as a monitor, with a child of its own."""
    script = directory / "conmon"
    if not script.exists():  # a shell may still be reading it
        script.write_text("#!/bin/sh\nsleep 1000 &\nwait\n")
        script.chmod(0o755)
    return subprocess.Popen([script, "--cid", identity], start_new_session=True)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("told", [True, False], ids=["by its PID file", "by a search"])
def test_a_monitor_is_killed_with_what_it_runs(tmp_path: Path, told: bool) -> None:
    identity, other = new_id(), new_id()
    mine, foreign = fake_conmon(tmp_path, identity), fake_conmon(tmp_path, other)
    paths = MonitorPaths(tmp_path)
    try:
        children = Path(f"/proc/{mine.pid}/task/{mine.pid}/children")
        while not children.read_text():
            time.sleep(0.005)
        child = int(children.read_text())
        if told:
            paths.monitor_pid.write_text(str(mine.pid))
        kill_monitor(paths, identity)
        assert mine.wait(5 * PATIENCE) == -9
        end = time.monotonic() + 5 * PATIENCE
        while lives(child):
            assert time.monotonic() < end
            time.sleep(0.005)
        kill_monitor(paths, identity)
        # A PID that belongs to somebody else by now is left alone.
        paths.monitor_pid.write_text(str(foreign.pid))
        kill_monitor(paths, identity)
        assert foreign.poll() is None
    finally:
        for process in (mine, foreign):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait(5 * PATIENCE)


async def test_an_exit_is_not_awaited_from_a_dead_monitor(tmp_path: Path) -> None:
    exits: asyncio.Queue[Exit] = asyncio.Queue()
    watch = ExitWatch(tmp_path / "exits", exits.put_nowait, lambda: 42)
    watch.start()
    process = await asyncio.create_subprocess_exec("sleep", "60")
    monitor = await asyncio.create_subprocess_exec("sleep", "60")
    watch.add("lost", ProcessIdentity.of(process.pid), monitor.pid)
    assert watch.signal("lost", 9)
    await process.wait()
    await asyncio.sleep(0.05)
    assert exits.empty()
    assert watch.ending("lost")
    assert not watch.signal("lost", 9)
    monitor.kill()
    async with asyncio.timeout(2 * PATIENCE):
        assert await exits.get() == Exit("lost", None, 42)
    await monitor.wait()
    watch.add("late", ProcessIdentity(process.pid, 1), monitor.pid)
    async with asyncio.timeout(2 * PATIENCE):
        assert await exits.get() == Exit("late", None, 42)
    assert not watch.ending("late")
    watch.stop()


async def test_a_container_that_lives_on_without_its_monitor_is_told_of(tmp_path: Path) -> None:
    exits: asyncio.Queue[Exit] = asyncio.Queue()
    alone: asyncio.Queue[str] = asyncio.Queue()
    watch = ExitWatch(tmp_path / "exits", exits.put_nowait, lambda: 42, alone.put_nowait)
    watch.start()
    process, monitor, other = [await asyncio.create_subprocess_exec("sleep", "60") for _ in range(3)]
    watch.add("alone", ProcessIdentity.of(process.pid), monitor.pid)
    monitor.kill()
    async with asyncio.timeout(5 * PATIENCE):
        assert await alone.get() == "alone"
        await monitor.wait()
        watch.forget("alone")
        watch.add("alone", ProcessIdentity.of(process.pid), monitor.pid)  # as the next daemon does
        assert await alone.get() == "alone"
        process.kill()
        assert await exits.get() == Exit("alone", None, 42)
        await process.wait()
        watch.add("whole", ProcessIdentity.of(other.pid), other.pid)  # both end at once
        other.kill()
        assert await exits.get() == Exit("whole", None, 42)
        await other.wait()
    assert alone.empty()
    watch.stop()


async def test_exits_are_told_where_inotify_has_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("triptych_linux.syscalls.check", exhausted)
    exits: asyncio.Queue[Exit] = asyncio.Queue()
    watch = ExitWatch(tmp_path / "exits", exits.put_nowait, lambda: 42)
    watch.start()
    process, monitor = [await asyncio.create_subprocess_exec("sleep", "60") for _ in range(2)]
    watch.add("told", ProcessIdentity.of(process.pid), monitor.pid)
    process.kill()
    await process.wait()
    (tmp_path / "exits/told").write_text("137")
    monitor.kill()
    async with asyncio.timeout(5 * PATIENCE):
        assert (await exits.get()).code == 137
    await monitor.wait()
    watch.stop()
