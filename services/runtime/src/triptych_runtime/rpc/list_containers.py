"""ListContainers and StreamContainers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from runtime.v1 import api_pb2

from triptych_runtime.node import Node
from triptych_runtime.rpc.chunks import chunks
from triptych_runtime.view import match_container


def _items(node: Node, filter: api_pb2.ContainerFilter) -> list[api_pb2.Container]:
    get, records = node.container_messages.get, node.state.visible_containers()
    if filter.ByteSize():  # the kubelet asks for all, and for each to be looked at would double the time
        records = (record for record in records if match_container(record, filter))
    return [get(record.id, record) for record in records]


def list_containers(node: Node, request: api_pb2.ListContainersRequest) -> api_pb2.ListContainersResponse:
    """Every container that passes the filter."""
    return api_pb2.ListContainersResponse(containers=_items(node, request.filter))


async def stream_containers(
    node: Node, request: api_pb2.StreamContainersRequest
) -> AsyncIterator[api_pb2.StreamContainersResponse]:
    """The same in chunks, for lists that outgrow a message."""
    for part in chunks(_items(node, request.filter)):
        yield api_pb2.StreamContainersResponse(containers=part)
