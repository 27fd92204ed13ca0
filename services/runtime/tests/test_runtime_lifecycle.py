"""Undo stacks, joined attempts, waits, locks."""

from __future__ import annotations

import asyncio
import functools

import pytest
from triptych_runtime.errors import CalledOff, OperationTimeout, SandboxNotReady
from triptych_runtime.lifecycle import Flights, Undo, Waits, deadline, each, together
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


async def test_work_that_is_called_off_tells_its_callers_why() -> None:
    flights = Flights()
    undone = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            undone.set()

    callers = [asyncio.create_task(flights.join("create x_1", work)) for _ in range(2)]
    other = asyncio.create_task(flights.join("create y_1", work))
    await asyncio.sleep(0.01)
    flights.call_off("create x_", SandboxNotReady("x"))
    await flights.settled_below("create x_")
    assert undone.is_set()
    for caller in callers:
        with pytest.raises(SandboxNotReady):
            await caller
    assert not other.done()
    await flights.drain(0.01, 30)
    with pytest.raises(CalledOff, match="create y_1"):
        await other


async def test_an_end_waits_for_undoing_as_long_as_it_says_and_no_longer() -> None:
    flights = Flights()
    undone = asyncio.Event()

    async def work(undo: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await undo.wait()
            undone.set()

    released = asyncio.Event()
    flights.background("k", lambda: work(released))
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await flights.drain(0.01, 0.01)
        assert not undone.is_set()
        draining = asyncio.create_task(flights.drain(0, 30))
        released.set()
        await draining
    assert undone.is_set()


async def test_a_flight_that_has_ended_is_not_joined() -> None:
    flights = Flights()
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        return runs

    flights.background("k", work)
    task = flights.get("k")
    assert task is not None
    while not task.done():
        await asyncio.sleep(0)
    assert "k" not in flights
    assert await flights.join("k", work) == 2


async def test_together_raises_the_first_failure_itself() -> None:
    ended: list[str] = []

    async def work(name: str, seconds: float, error: Exception | None = None) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ended.append(name)
            raise ValueError("while being cancelled") from None
        if error is not None:
            raise error

    with pytest.raises(OSError, match="first"):
        await together(work("a", 5), work("b", 0.01, OSError("first")), work("c", 5))
    assert sorted(ended) == ["a", "c"]
    await together(work("a", 0), work("b", 0))


async def test_each_comes_to_its_end() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0.01 * number)
        ended.append(number)
        if number in (1, 2):
            raise ValueError(f"number {number}")

    with pytest.raises(ValueError, match="number 2"):
        await each(work(number) for number in (3, 2, 1))
    assert ended == [1, 2, 3]


async def test_a_deadline_says_what_it_was_for() -> None:
    with pytest.raises(OperationTimeout, match=r"^make tea: no end after 0\.01 s$"):
        async with deadline(0.01, "make tea"):
            await asyncio.sleep(5)
    with pytest.raises(TimeoutError, match="inner"):
        async with deadline(5, "make tea"):
            raise TimeoutError("inner")


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
