"""What RPCs ask of NRI: at no cost without plugins, once for each end, and with the validator's word."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nri.v1alpha1 import nri_pb2 as nri
from runtime.v1 import api_pb2 as cri
from triptych_dev.testing.nriplugin import NriPlugin, connected
from triptych_errors import InvalidArgument
from triptych_runtime.errors import CalledOff, RefusedByPlugin
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord
from triptych_runtime.nri import installed, serve
from triptych_runtime.nri.interface import Nri
from triptych_runtime.nri.listener import listen
from triptych_runtime.nri.settings import NriSettings, ValidatorSettings
from triptych_runtime.spec import HostFacts
from triptych_service.tasks import Tasks

DOCUMENT: dict[str, Any] = {"process": {"args": ["true"]}, "linux": {"cgroupsPath": "/c"}}


def sandbox() -> SandboxRecord:
    config = cri.PodSandboxConfig()
    config.metadata.name = "pod"
    return SandboxRecord(id="s", phase=SandboxPhase.READY, config=config, handler="", created_at=1)


def container(phase: ContainerPhase = ContainerPhase.RUNNING, identity: str = "c") -> ContainerRecord:
    config = cri.ContainerConfig()
    config.metadata.name = "main"
    return ContainerRecord(
        id=identity, sandbox_id="s", phase=phase, config=config, handler="crun", created_at=1
    )


@dataclass
class Daemon:
    """A runtime daemon without pods of its own."""

    settings: NriSettings = field(default_factory=NriSettings)
    containers: list[ContainerRecord] = field(default_factory=list)
    there: list[SandboxRecord] = field(default_factory=lambda: [sandbox()])
    resized: list[tuple[str, cri.LinuxContainerResources]] = field(default_factory=list)
    reads: int = 0

    def nri(self) -> Nri:
        return Nri(
            lambda: self.settings,
            HostFacts(),
            lambda: self.there,
            lambda: self.containers,
            self.document,
            lambda plugin, event, outcome, seconds: None,
            self.resize,
        )

    def document(self, container_id: str) -> dict[str, Any] | None:
        self.reads += 1
        return DOCUMENT

    async def resize(self, container_id: str, limits: cri.LinuxContainerResources) -> None:
        if container_id == "gone":
            raise InvalidArgument("gone")
        self.resized.append((container_id, limits))


def loaded(made: Nri) -> serve.Load:
    """What gives NRI when there is a first plugin."""

    async def load() -> Nri:
        return made

    return load


async def join(made: Nri, plugin: NriPlugin) -> asyncio.Task[None]:
    ours, theirs = socket.socketpair()
    taken, _ = await asyncio.gather(made.plugins.admit(ours), asyncio.to_thread(plugin.start, theirs))
    assert taken is not None
    return asyncio.create_task(made.plugins.serve(taken))


async def leave(plugin: NriPlugin, serving: asyncio.Task[None]) -> None:
    await asyncio.to_thread(plugin.stop)
    await serving


async def test_without_plugins_nothing_is_read_or_asked() -> None:
    daemon = Daemon()
    made, limits = daemon.nri(), cri.LinuxContainerResources(cpu_shares=5)
    assert not made.active
    await made.run_pod_sandbox(sandbox())
    assert await made.create_container(sandbox(), container(), DOCUMENT) is None
    await made.start_container(sandbox(), container())
    assert await made.update_container(sandbox(), container(), limits) is limits
    await made.stop_container(sandbox(), container())
    await made.remove_container(sandbox(), container())
    assert daemon.reads == 0


async def test_for_plugins_that_want_none_of_it_nothing_is_read() -> None:
    daemon = Daemon()
    made, plugin = daemon.nri(), NriPlugin("plugin", "10", (nri.CREATE_CONTAINER, nri.REMOVE_CONTAINER))
    serving = await join(made, plugin)
    await made.container_created(sandbox(), container())
    await made.start_container(sandbox(), container())
    await made.container_started(sandbox(), container())
    await made.stop_container(sandbox(), container())
    assert daemon.reads == 0
    await made.remove_container(sandbox(), container())
    assert plugin.of("c") == ["RemoveContainer"]
    assert daemon.reads == 1
    await leave(plugin, serving)


async def test_a_required_plugin_is_missed_where_there_is_none_at_all() -> None:
    rules = ValidatorSettings(required_plugins=("guard",))
    daemon = Daemon(NriSettings(validator=rules))
    made = daemon.nri()
    assert made.active
    with pytest.raises(RefusedByPlugin, match="guard"):
        await made.create_container(sandbox(), container(), DOCUMENT)
    plugin = NriPlugin("guard", "10", ())
    serving = await join(made, plugin)
    assert await made.create_container(sandbox(), container(), DOCUMENT) is not None
    await leave(plugin, serving)


async def test_a_required_plugin_that_crashes_when_it_is_asked_is_missed() -> None:
    rules = ValidatorSettings(required_plugins=("guard",))
    made = Daemon(NriSettings(registration_timeout=60, request_timeout=60, validator=rules)).nri()
    plugin = NriPlugin("guard", "10", (nri.CREATE_CONTAINER,))
    ours, theirs = socket.socketpair()
    taken, _ = await asyncio.gather(made.plugins.admit(ours), asyncio.to_thread(plugin.start, theirs))
    assert taken is not None
    serving = asyncio.create_task(made.plugins.serve(taken))
    await asyncio.sleep(0)
    plugin.answers["CreateContainer"] = lambda _: theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(RefusedByPlugin, match="required but not present"):
        await made.create_container(sandbox(), container(), DOCUMENT)
    await leave(plugin, serving)


async def test_the_built_in_validator_knows_who_wants_what() -> None:
    daemon = Daemon(NriSettings(validator=ValidatorSettings(reject_namespace_adjustment=True)))
    made, plugin = daemon.nri(), NriPlugin("taker", "10", ())
    change = nri.ContainerAdjustment()
    change.linux.namespaces.add(type="network", path="/proc/1/ns/net")
    plugin.answers["CreateContainer"] = lambda _: nri.CreateContainerResponse(adjust=change)
    serving = await join(made, plugin)
    with pytest.raises(RefusedByPlugin, match="10-taker"):
        await made.create_container(sandbox(), container(), DOCUMENT)
    await leave(plugin, serving)


async def test_one_that_comes_while_a_container_is_made_is_told_of_it() -> None:
    daemon = Daemon(containers=[container(ContainerPhase.EXITED, "old")])
    made, first, second = daemon.nri(), NriPlugin("first", "10", ()), NriPlugin("second", "20", ())
    serving = [await join(made, first)]
    coming = container(ContainerPhase.CREATING, "new")
    await made.create_container(sandbox(), coming, DOCUMENT)
    serving.append(await join(made, second))
    told = second.last("Synchronize")
    assert [each.id for each in told.pods] == ["s"]
    assert [each.id for each in told.containers] == ["new"]
    await made.container_created(sandbox(), coming)
    third = NriPlugin("third", "30", ())
    serving.append(await join(made, third))
    assert list(third.last("Synchronize").containers) == []
    for plugin, task in zip((first, second, third), serving, strict=True):
        await leave(plugin, task)


async def test_an_end_is_told_once_and_before_the_removal() -> None:
    made, plugin = Daemon().nri(), NriPlugin("plugin", "10", ())
    serving = await join(made, plugin)
    await made.stop_container(sandbox(), container())
    await made.stop_container(sandbox(), container())
    await made.remove_container(sandbox(), container())
    await made.remove_container(sandbox(), container(identity="never started"))
    await made.stop_pod_sandbox(sandbox())
    await made.remove_pod_sandbox(sandbox())
    assert plugin.of("c") == ["StopContainer", "RemoveContainer"]
    assert plugin.of("never started") == ["StopContainer", "RemoveContainer"]
    assert plugin.of_pod("s") == ["StopPodSandbox", "RemovePodSandbox"]
    await leave(plugin, serving)


async def test_updates_that_fail_are_told_unless_they_may() -> None:
    daemon = Daemon()
    made, plugin = daemon.nri(), NriPlugin("plugin", "10", ())
    serving = await join(made, plugin)
    works, fails, may_fail = (nri.ContainerUpdate(container_id=each) for each in ("c", "gone", "gone"))
    works.linux.resources.cpu.shares.value = 7
    may_fail.ignore_failure = True
    assert await asyncio.to_thread(plugin.update, works, fails, may_fail) == [fails]
    assert daemon.resized == [("c", cri.LinuxContainerResources(cpu_shares=7))]
    await leave(plugin, serving)


async def test_nothing_is_made_unasked_once_the_daemon_ends() -> None:
    made, plugin = Daemon().nri(), NriPlugin("plugin", "10", ())
    serving = await join(made, plugin)
    await asyncio.sleep(0)
    serving.cancel()
    await asyncio.wait((serving,))
    await asyncio.to_thread(plugin.stop)
    with pytest.raises(CalledOff):
        await made.run_pod_sandbox(sandbox())
    with pytest.raises(CalledOff):
        await made.create_container(sandbox(), container(), DOCUMENT)
    with pytest.raises(CalledOff):
        await made.start_container(sandbox(), container())
    await made.stop_container(sandbox(), container())
    await made.remove_container(sandbox(), container())


async def test_after_plugins_that_left_by_themselves_things_are_made_without() -> None:
    made, plugin = Daemon().nri(), NriPlugin("plugin", "10", ())
    await leave(plugin, await join(made, plugin))
    assert not made.active
    await made.start_container(sandbox(), container())


async def test_what_is_made_unasked_is_there_for_one_that_comes_meanwhile() -> None:
    daemon = Daemon(there=[])
    made, plugin = daemon.nri(), NriPlugin("plugin", "10", ())
    coming = container(ContainerPhase.CREATING, "new")
    await made.run_pod_sandbox(sandbox())
    made.container_unasked(coming)
    serving = await join(made, plugin)
    told = plugin.last("Synchronize")
    assert ([each.id for each in told.pods], [each.id for each in told.containers]) == (["s"], ["new"])
    await made.remove_container(sandbox(), coming)
    await made.remove_pod_sandbox(sandbox())
    assert plugin.of("new") == ["StopContainer", "RemoveContainer"]
    assert plugin.of_pod("s") == ["StopPodSandbox", "RemovePodSandbox"]
    later = NriPlugin("later", "20", ())
    serving_later = await join(made, later)
    assert not later.last("Synchronize").pods and not later.last("Synchronize").containers
    await leave(plugin, serving)
    await leave(later, serving_later)


async def test_nothing_is_made_while_the_first_plugin_is_taken_in() -> None:
    made, plugin = Daemon().nri(), NriPlugin("plugin", "10", ())
    synchronizing, go_on = threading.Event(), threading.Event()

    def synchronize(_: object) -> None:
        synchronizing.set()
        go_on.wait(60)

    plugin.answers["Synchronize"] = synchronize
    joining = asyncio.create_task(join(made, plugin))
    assert await asyncio.to_thread(synchronizing.wait, 60)
    assert made.active
    creating = asyncio.create_task(made.create_container(sandbox(), container(), DOCUMENT))
    await asyncio.sleep(0)
    go_on.set()
    assert await creating is not None
    assert plugin.of("c")[0] == "CreateContainer"
    await leave(plugin, await joining)


async def test_one_that_hangs_while_it_is_taken_in_is_waited_for_no_longer_than_it_has() -> None:
    made, plugin = Daemon(NriSettings(registration_timeout=0.5)).nri(), NriPlugin("plugin", "10", ())
    go_on = threading.Event()

    def hang(_: object) -> None:
        go_on.wait(60)

    plugin.answers["Synchronize"] = hang
    ours, theirs = socket.socketpair()
    taken, _ = await asyncio.gather(made.plugins.admit(ours), asyncio.to_thread(plugin.start, theirs))
    assert taken is None and not made.active
    go_on.set()
    await asyncio.to_thread(plugin.stop)


async def test_a_removal_that_overtakes_is_told_after_the_end() -> None:
    read = threading.Event()

    class Slow(Daemon):
        def document(self, container_id: str) -> dict[str, Any] | None:
            read.wait(60)
            return None

    made, plugin = Slow().nri(), NriPlugin("plugin", "10", ())
    serving = await join(made, plugin)
    stopping = asyncio.create_task(made.stop_container(sandbox(), container()))
    await asyncio.sleep(0)
    removing = asyncio.create_task(made.remove_container(sandbox(), container()))
    await asyncio.sleep(0)
    read.set()
    await asyncio.gather(stopping, removing)
    assert plugin.of("c") == ["StopContainer", "RemoveContainer"]
    await leave(plugin, serving)


async def test_an_update_that_the_disk_refuses_is_a_failed_one() -> None:
    class Full(Daemon):
        async def resize(self, container_id: str, limits: cri.LinuxContainerResources) -> None:
            raise OSError(errno.ENOSPC, "full")

    made, plugin = Full().nri(), NriPlugin("plugin", "10", ())
    update = nri.ContainerUpdate(container_id="c")
    plugin.answers["Synchronize"] = lambda _: nri.SynchronizeResponse(update=[update])
    serving = await join(made, plugin)
    assert await asyncio.to_thread(plugin.update, update) == [update]
    await leave(plugin, serving)


async def test_a_validator_that_fails_is_named() -> None:
    def fail(_: object) -> None:
        raise InvalidArgument("broken rules")

    made, plugin = Daemon().nri(), NriPlugin("judge", "10", ())
    plugin.answers["ValidateContainerAdjustment"] = fail
    serving = await join(made, plugin)
    with pytest.raises(RefusedByPlugin, match="10-judge failed: broken rules"):
        await made.create_container(sandbox(), container(), DOCUMENT)
    await leave(plugin, serving)


async def test_connections_leave_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"
    settings = NriSettings(socket=str(path), plugin_dir=str(tmp_path / "none"))
    made = Daemon(settings).nri()

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def use() -> None:
        with connected(path):
            pass
        for _ in range(3):  # such as do not register
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                other.connect(str(path))

    async with Tasks() as tasks:
        await serve.start(loaded(made), settings, str(tmp_path), tasks)
        await asyncio.sleep(0)
        idle, before = len(asyncio.all_tasks()), descriptors()
        for _ in range(50):
            await asyncio.to_thread(use)
        async with asyncio.timeout(60):
            while made.active or len(asyncio.all_tasks()) > idle or descriptors() > before:
                await asyncio.sleep(0.01)
        await tasks.end()


def test_a_socket_of_another_runtime_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "run/nri.sock"
    first = listen(path)
    assert first is not None
    with first:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert listen(path) is None
    busy = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink()
    busy.bind(str(path))
    busy.listen(0)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(3)]
    for each in waiting:
        with contextlib.suppress(BlockingIOError):
            each.connect(str(path))
    assert listen(path) is None  # which takes no connections just now
    for each in (busy, *waiting):
        each.close()
    second = listen(path)  # what a daemon left that was killed
    assert second is not None
    second.close()


async def test_a_plugin_connects_to_the_socket_and_it_goes_with_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"
    settings = NriSettings(socket=str(path), plugin_dir=str(tmp_path / "none"))
    made = Daemon(settings).nri()
    async with Tasks() as tasks:
        await serve.start(loaded(made), settings, str(tmp_path), tasks)

        def use() -> None:
            with connected(path) as plugin:
                assert plugin.last("Configure").runtime_name == "triptych"

        await asyncio.to_thread(use)
        await tasks.end()
    assert not path.exists()


async def test_turned_off_it_makes_no_socket(tmp_path: Path) -> None:
    settings = NriSettings(enabled=False, socket=str(tmp_path / "nri.sock"))
    async with Tasks() as tasks:
        await serve.start(loaded(Daemon(settings).nri()), settings, str(tmp_path), tasks)
    assert list(tmp_path.iterdir()) == []


def test_installed_plugins_are_found_with_their_configuration(tmp_path: Path) -> None:
    programs, configs = tmp_path / "plugins", tmp_path / "conf.d"
    programs.mkdir()
    configs.mkdir()
    for name, mode in (("20-b", 0o755), ("10-a", 0o755), ("30-data", 0o644), ("nonsense", 0o755)):
        (programs / name).write_text("")
        (programs / name).chmod(mode)
    os.mkdir(programs / "40-directory")
    (configs / "10-a.conf").write_text("of the file")
    (configs / "a.conf").write_text("of the name")
    (configs / "b.conf").write_text("of b")
    settings = NriSettings(plugin_dir=str(programs), plugin_config_dir=str(configs))
    found = [(str(each.identity), each.config) for each in installed.find(settings)]
    assert found == [("10-a", "of the file"), ("20-b", "of b")]


def test_a_daemon_without_plugins_has_not_loaded_what_serves_them() -> None:
    look = "import sys, triptych_runtime.daemon; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60
    )
    loaded_modules = set(done.stdout.split())
    assert "triptych_runtime.nri.serve" in loaded_modules
    assert not {"nri.v1alpha1.nri_pb2", "triptych_ttrpc", "triptych_runtime.nri.interface"} & loaded_modules
