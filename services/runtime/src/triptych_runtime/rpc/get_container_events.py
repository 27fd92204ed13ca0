"""GetContainerEvents: the stream behind the kubelet's evented PLEG."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from runtime.v1 import api_pb2

from triptych_runtime import clock
from triptych_runtime.node import Node


async def get_container_events(
    node: Node, request: api_pb2.GetEventsRequest, begun: Callable[[], Awaitable[None]]
) -> AsyncIterator[api_pb2.ContainerEventResponse]:
    """Every event from now on, in order, with the statuses of its pod.

    :param begun: called when "now" is: no later event will be missed.
    :raises SlowSubscriber: when the client does not read; it must list and subscribe again.
    """
    with node.events.subscribe() as subscription:
        await begun()
        async for event in subscription:
            yield event
            node.metrics.delivered(event.created_at, clock.now())
