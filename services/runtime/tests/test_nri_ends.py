"""When NRI plugins are told of an end: after the start that it may overtake."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from runtime.v1 import api_pb2 as cri
from triptych_runtime.containers.exits import plugins_told_of_stop, tell_plugins_of_stop
from triptych_runtime.lifecycle import Flights
from triptych_runtime.locks import Locks
from triptych_runtime.model import ContainerPhase, ContainerRecord
from triptych_runtime.node import Node


class Told:
    active = True

    def __init__(self) -> None:
        self.events: list[str] = []

    async def stop_container(self, sandbox: object, container: ContainerRecord) -> None:
        self.events.append("stop")


def node() -> tuple[Node, Told]:
    told = Told()
    made: Any = SimpleNamespace(
        flights=Flights(), locks=Locks(), nri=told, state=SimpleNamespace(sandboxes={"s": object()})
    )
    return cast(Node, made), told


def ended() -> ContainerRecord:
    config = cri.ContainerConfig()
    return ContainerRecord(
        id="c", sandbox_id="s", phase=ContainerPhase.EXITED, config=config, handler="crun", created_at=1
    )


async def test_an_end_is_told_after_the_start() -> None:
    made, told = node()
    go_on = asyncio.Event()

    async def start() -> None:
        await go_on.wait()
        told.events.append("started")

    made.flights.background("start c", start)
    tell_plugins_of_stop(made, ended())
    for _ in range(10):
        await asyncio.sleep(0)
    go_on.set()
    await plugins_told_of_stop(made, "c")
    assert told.events == ["started", "stop"]


async def test_an_end_that_is_still_being_written_down_is_waited_for() -> None:
    made, told = node()
    async with made.locks.hold("c"):  # by the work that the exit is
        waiting = asyncio.create_task(plugins_told_of_stop(made, "c"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        tell_plugins_of_stop(made, ended())
    await waiting
    assert told.events == ["stop"]
