"""Undo stacks, joined attempts, waits, locks."""

from __future__ import annotations

import asyncio
import functools

import pytest
from triptych_runtime.lifecycle import Flights, Undo, Waits
from triptych_runtime.locks import Locks


async def test_undo_runs_newest_first_and_survives_a_failing_step() -> None:
    order: list[str] = []

    async def note(name: str) -> None:
        order.append(name)
        if name == "second":
            raise OSError("broken")

    with pytest.raises(ValueError, match="boom"):
        async with Undo("x") as undo:
            for name in ("first", "second", "third"):
                undo.push(name, functools.partial(note, name))
            raise ValueError("boom")
    assert order == ["third", "second", "first"]


async def test_undo_is_forgotten_on_success() -> None:
    async with Undo("x") as undo:
        undo.push("never", lambda: pytest.fail("undone"))


async def test_undo_runs_when_the_caller_is_cancelled() -> None:
    undone = asyncio.Event()

    async def step() -> None:
        await asyncio.sleep(0.01)
        undone.set()

    async def work() -> None:
        async with Undo("x") as undo:
            undo.push("step", step)
            await asyncio.sleep(10)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone.is_set()


async def test_flights_join_and_outlive_their_first_caller() -> None:
    flights = Flights()
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.02)
        return 7

    first = asyncio.create_task(flights.join("k", work))
    await asyncio.sleep(0)
    second = asyncio.create_task(flights.join("k", work))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 7
    assert runs == 1
    assert len(flights) == 0
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_flights_give_every_caller_the_error() -> None:
    flights = Flights()

    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    results = await asyncio.gather(*(flights.join("k", work) for _ in range(3)), return_exceptions=True)
    assert [type(r) for r in results] == [ValueError] * 3


async def test_waits() -> None:
    waits: Waits[int] = Waits()
    waiting = asyncio.create_task(waits.wait("a", 5))
    await asyncio.sleep(0)
    waits.notify("b", 1)
    waits.notify("a", 2)
    assert await waiting == 2
    with pytest.raises(TimeoutError):
        await waits.wait("a", 0.01)


async def test_locks_are_dropped_when_unused() -> None:
    locks = Locks()
    order: list[str] = []

    async def hold(name: str) -> None:
        async with locks.hold("x"):
            order.append(name + "+")
            await asyncio.sleep(0.005)
            order.append(name + "-")

    await asyncio.gather(hold("a"), hold("b"))
    assert order == ["a+", "a-", "b+", "b-"]
    assert locks._locks == {}
