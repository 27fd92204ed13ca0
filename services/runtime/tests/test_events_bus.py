"""Fan-out of container events."""

from __future__ import annotations

import asyncio

import pytest
from runtime.v1.api_pb2 import CONTAINER_CREATED_EVENT, ContainerEventResponse
from triptych_runtime.events import EventBus, SlowSubscriber


def event(number: int, at: int = 0) -> ContainerEventResponse:
    return ContainerEventResponse(
        container_id=str(number), container_event_type=CONTAINER_CREATED_EVENT, created_at=at or number
    )


async def test_every_subscriber_gets_all_in_order() -> None:
    bus = EventBus()
    bus.publish(event(0))
    with bus.subscribe() as one, bus.subscribe() as two:
        assert bus.watched
        for number in range(1, 501):
            bus.publish(event(number))
        bus.close()
        for subscription in (one, two):
            got = [int(e.container_id) async for e in subscription]
            assert got == list(range(1, 501))
    assert not bus.watched


async def test_a_waiting_subscriber_is_woken() -> None:
    bus = EventBus()
    with bus.subscribe() as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        bus.publish(event(7))
        assert (await waiting).container_id == "7"


async def test_times_never_go_back() -> None:
    bus = EventBus()
    with bus.subscribe() as subscription:
        bus.publish(event(1, at=100))
        bus.publish(event(2, at=90))
        assert [(await anext(subscription)).created_at for _ in range(2)] == [100, 100]


async def test_a_slow_subscriber_is_told_and_others_are_not_held_up() -> None:
    bus = EventBus(max_events=3)
    with bus.subscribe() as slow, bus.subscribe() as quick:
        for number in range(1, 6):
            bus.publish(event(number))
            assert (await anext(quick)).container_id == str(number)
        with pytest.raises(SlowSubscriber, match="3 container events"):
            await anext(slow)


async def test_bytes_are_bounded_too() -> None:
    bus = EventBus(max_bytes=event(1).ByteSize() * 2)
    with bus.subscribe() as slow:
        for number in range(1, 4):
            bus.publish(event(number))
        with pytest.raises(SlowSubscriber):
            await anext(slow)


async def test_subscribing_to_a_closed_bus_ends_at_once() -> None:
    bus = EventBus()
    bus.close()
    with bus.subscribe() as subscription:
        assert [e async for e in subscription] == []
