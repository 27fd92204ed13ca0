"""Connected NRI plugins: registration, order, silence, and what they are told when they come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from nri.v1alpha1 import nri_pb2 as nri
from triptych_dev.testing.nriplugin import NriPlugin
from triptych_errors import InvalidArgument
from triptych_runtime.errors import RefusedByPlugin
from triptych_runtime.nri.plugin import identify
from triptych_runtime.nri.plugins import Plugins
from triptych_runtime.nri.settings import NriSettings
from triptych_ttrpc import ConnectionClosed

POD = nri.RunPodSandboxRequest(pod=nri.PodSandbox(id="p", name="pod"))


@dataclass
class Runtime:
    """What plugins see of a runtime."""

    settings: NriSettings = field(default_factory=NriSettings)
    pods: list[nri.PodSandbox] = field(default_factory=list)
    containers: list[nri.Container] = field(default_factory=list)
    updates: list[nri.ContainerUpdate] = field(default_factory=list)
    told: list[tuple[str, str, str]] = field(default_factory=list)

    def plugins(self) -> Plugins:
        return Plugins(lambda: self.settings, self.inventory, self.update, self.note)

    async def inventory(self) -> tuple[Sequence[nri.PodSandbox], Sequence[nri.Container]]:
        return self.pods, self.containers

    async def update(self, updates: Sequence[nri.ContainerUpdate]) -> list[nri.ContainerUpdate]:
        self.updates += updates
        return [update for update in updates if update.container_id == "fails"]

    def note(self, plugin: str, event: str, outcome: str, seconds: float) -> None:
        self.told.append((plugin, event, outcome))


@asynccontextmanager
async def joined(plugins: Plugins, *made: NriPlugin) -> AsyncIterator[None]:
    """Plugins that were taken in."""
    serving = []
    try:
        for plugin in made:
            ours, theirs = socket.socketpair()
            starting = asyncio.to_thread(plugin.start, theirs)
            taken, _ = await asyncio.gather(plugins.admit(ours), starting)
            assert taken is not None
            serving.append(asyncio.create_task(plugins.serve(taken)))
        yield
    finally:
        for plugin in made:
            await asyncio.to_thread(plugin.stop)
        await asyncio.gather(*serving)


async def relay(plugins: Plugins, *, heed: bool = True) -> None:
    async with plugins.lock:
        await plugins.relay(nri.RUN_POD_SANDBOX, POD, heed=heed)


async def test_they_are_asked_in_the_order_of_their_indexes() -> None:
    order: list[str] = []
    late, early = NriPlugin("late", "20", ()), NriPlugin("early", "05", ())
    for plugin in (late, early):
        plugin.answers["RunPodSandbox"] = lambda _, name=plugin.name: order.append(name)  # type: ignore[misc]
    plugins = Runtime().plugins()
    async with joined(plugins, late, early):
        await relay(plugins)
        assert [str(each) for each in plugins.identities] == ["05-early", "20-late"]
    assert order == ["early", "late"]
    assert not plugins


async def test_a_silent_one_is_dropped_and_the_next_one_is_asked() -> None:
    runtime = Runtime(NriSettings(request_timeout=0.3))
    silent, next_one = NriPlugin("silent", "10", ()), NriPlugin("next", "20", ())
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(_: Any) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)

    plugins = runtime.plugins()
    async with joined(plugins, silent, next_one):
        silent.answers["RunPodSandbox"] = wait
        await relay(plugins)
        release.set()
        assert [name for name, _ in next_one.told][-1] == "RunPodSandbox"
        async with asyncio.timeout(30):
            while len(plugins) > 1:
                await asyncio.sleep(0.01)
    assert ("silent", "RunPodSandbox", "dropped") in runtime.told


async def test_one_that_is_against_it_ends_the_round_unless_it_comes_too_late() -> None:
    def refuse(_: Any) -> None:
        raise InvalidArgument("no such pods here")

    first, second = NriPlugin("first", "10", ()), NriPlugin("second", "20", ())
    first.answers["RunPodSandbox"] = refuse
    runtime = Runtime()
    plugins = runtime.plugins()
    async with joined(plugins, first, second):
        with pytest.raises(RefusedByPlugin, match="10-first: no such pods here"):
            await relay(plugins)
        assert "RunPodSandbox" not in [name for name, _ in second.told]
        await relay(plugins, heed=False)
        assert "RunPodSandbox" in [name for name, _ in second.told]
    assert ("first", "RunPodSandbox", "refused") in runtime.told


async def test_what_there_is_goes_in_parts_when_it_is_too_much_for_one_message() -> None:
    large = "x" * 50_000
    runtime = Runtime(
        pods=[nri.PodSandbox(id=f"p{number}") for number in range(3)],
        containers=[nri.Container(id=f"c{number}", status_message=large) for number in range(200)],
    )
    plugin = NriPlugin("plugin", "10", ())
    async with joined(runtime.plugins(), plugin):
        pass
    parts = [request for name, request in plugin.told if name == "Synchronize"]
    assert len(parts) > 1
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [pod.id for part in parts for pod in part.pods] == ["p0", "p1", "p2"]
    assert [each.id for part in parts for each in part.containers] == [f"c{number}" for number in range(200)]


async def test_one_that_knows_nothing_of_parts_is_not_taken_in() -> None:
    containers = [nri.Container(id=f"c{number}", status_message="x" * 100_000) for number in range(100)]
    plugins = Runtime(containers=containers).plugins()
    plugin = NriPlugin("plugin", "10", ())
    plugin.answers["Synchronize"] = lambda _: nri.SynchronizeResponse()
    ours, theirs = socket.socketpair()
    taken, _ = await asyncio.gather(plugins.admit(ours), asyncio.to_thread(plugin.start, theirs))
    await asyncio.to_thread(plugin.stop)
    assert taken is None and not plugins


async def test_updates_are_passed_on_and_what_failed_is_told() -> None:
    runtime = Runtime()
    plugin = NriPlugin("plugin", "10", ())
    wanted = nri.ContainerUpdate(container_id="at first")
    plugin.answers["Synchronize"] = lambda _: nri.SynchronizeResponse(update=[wanted])
    async with joined(runtime.plugins(), plugin):
        works, fails = (nri.ContainerUpdate(container_id=name) for name in ("works", "fails"))
        failed = await asyncio.to_thread(plugin.update, works, fails)
    assert [update.container_id for update in runtime.updates] == ["at first", "works", "fails"]
    assert failed == [fails]


async def test_one_that_does_not_register_is_given_up() -> None:
    plugins = Runtime(NriSettings(registration_timeout=0.1)).plugins()
    ours, theirs = socket.socketpair()
    with theirs:
        assert await plugins.admit(ours) is None
    assert ours.fileno() == -1


async def test_one_that_leaves_before_it_registered() -> None:
    plugins = Runtime().plugins()
    ours, theirs = socket.socketpair()
    theirs.close()
    assert await plugins.admit(ours) is None


@pytest.mark.parametrize(
    ("index", "name"), [("1", "a"), ("123", "a"), ("ab", "a"), ("10", ""), ("10", "a/b")]
)
def test_names_that_cannot_be_taken(index: str, name: str) -> None:
    with pytest.raises(InvalidArgument, match="NRI plugin"):
        identify(index, name)


async def test_one_that_waits_for_an_update_within_an_event_is_dropped_at_once() -> None:
    """The update may wait for what the event holds up: whoever drops the plugin must not wait for it."""
    asked, release = asyncio.Event(), asyncio.Event()

    class Slow(Runtime):
        async def update(self, updates: Sequence[nri.ContainerUpdate]) -> list[nri.ContainerUpdate]:
            if updates:
                asked.set()
                await release.wait()
            return []

    plugin = NriPlugin("plugin", "10", ())

    def update(_: Any) -> None:
        with pytest.raises(ConnectionClosed):
            plugin.update(nri.ContainerUpdate(container_id="c"))

    plugin.answers["RunPodSandbox"] = update
    plugins = Slow(NriSettings(request_timeout=0.5)).plugins()
    async with joined(plugins, plugin):
        async with asyncio.timeout(60):
            await relay(plugins)
        assert asked.is_set() and not release.is_set()
        async with asyncio.timeout(60):
            while plugins:
                await asyncio.sleep(0.01)
