from __future__ import annotations

import asyncio

import pytest
from triptych_image.pull.flights import Flights, Joined, Slots, gather


async def test_work_is_done_once_for_all_who_want_it() -> None:
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.02)
        return 7

    async with asyncio.TaskGroup() as tasks:
        flights: Flights[str, int] = Flights(tasks)
        found = await asyncio.gather(*(flights.join("k", work) for _ in range(5)))
        assert [result for result, _ in found] == [7] * 5
        assert sum(began for _, began in found) == 1
        assert runs == 1
        assert "k" not in flights


async def test_it_stops_when_the_last_caller_leaves() -> None:
    stopped = asyncio.Event()

    async def work() -> int:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return 1

    async with asyncio.TaskGroup() as tasks:
        flights: Flights[str, int] = Flights(tasks)
        one, two = (asyncio.create_task(flights.join("k", work)) for _ in range(2))
        await asyncio.sleep(0.01)
        one.cancel()
        await asyncio.sleep(0.01)
        assert not stopped.is_set()
        two.cancel()
        async with asyncio.timeout(10):
            await stopped.wait()


async def test_a_new_flight_waits_until_the_stopped_one_has_cleaned_up() -> None:
    events: list[str] = []

    async def slow_to_stop() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            events.append("cleaned")
            raise
        return 1

    async def work() -> int:
        events.append("began")
        return 2

    async with asyncio.TaskGroup() as tasks:
        flights: Flights[str, int] = Flights(tasks)
        first = asyncio.create_task(flights.join("k", slow_to_stop))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0)
        assert await flights.join("k", work) == (2, True)
        assert events == ["cleaned", "began"]


async def test_a_flight_that_waits_for_a_stopped_one_stops_too_and_the_next_waits_on() -> None:
    cleaning, clean = asyncio.Event(), asyncio.Event()
    events: list[str] = []

    async def slow_to_stop() -> int:
        try:
            await asyncio.sleep(60)
        finally:
            cleaning.set()
            await clean.wait()
            events.append("cleaned")
        return 1

    async def work(name: str) -> int:
        events.append(name)
        return 2

    async with asyncio.TaskGroup() as tasks:
        flights: Flights[str, int] = Flights(tasks)
        first = asyncio.create_task(flights.join("k", slow_to_stop))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await cleaning.wait()
        second = asyncio.create_task(flights.join("k", lambda: work("second")))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.create_task(flights.join("k", lambda: work("third")))
        await asyncio.sleep(0.01)
        assert events == []
        clean.set()
        assert await third == (2, True)
    assert events == ["cleaned", "third"]


async def test_errors_reach_everybody_and_tell_who_joined() -> None:
    async def work() -> int:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async with asyncio.TaskGroup() as tasks:
        flights: Flights[str, int] = Flights(tasks)
        found = await asyncio.gather(
            flights.join("k", work), flights.join("k", work), return_exceptions=True
        )
        assert isinstance(found[0], ValueError)
        assert isinstance(found[1], Joined) and isinstance(found[1].error, ValueError)


async def test_slots_limit_and_can_be_resized() -> None:
    slots = Slots(2)
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        async with slots:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(8)))
    assert most == 2
    slots.resize(4)
    await asyncio.gather(*(work() for _ in range(8)))
    assert most == 4


async def test_a_waiter_that_gives_up_passes_its_turn_on() -> None:
    slots = Slots(1)

    async def hold(seconds: float) -> None:
        async with slots:
            await asyncio.sleep(seconds)

    first = asyncio.create_task(hold(0.03))
    await asyncio.sleep(0.01)
    second, third = asyncio.create_task(hold(0)), asyncio.create_task(hold(0))
    await asyncio.sleep(0)
    second.cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(first, third)


async def test_gather_raises_the_first_error_as_it_is() -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("endless")

    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await gather([endless(), fail()])
    assert ended == ["endless"]
