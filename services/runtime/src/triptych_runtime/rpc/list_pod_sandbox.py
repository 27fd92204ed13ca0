"""ListPodSandbox and StreamPodSandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from runtime.v1 import api_pb2

from triptych_runtime.node import Node
from triptych_runtime.rpc.chunks import chunks
from triptych_runtime.view import match_sandbox


def _items(node: Node, filter: api_pb2.PodSandboxFilter) -> list[api_pb2.PodSandbox]:
    get, records = node.sandbox_messages.get, node.state.visible_sandboxes()
    if filter.ByteSize():
        records = (record for record in records if match_sandbox(record, filter))
    return [get(record.id, record) for record in records]


def list_pod_sandbox(node: Node, request: api_pb2.ListPodSandboxRequest) -> api_pb2.ListPodSandboxResponse:
    """Every sandbox that passes the filter."""
    return api_pb2.ListPodSandboxResponse(items=_items(node, request.filter))


async def stream_pod_sandboxes(
    node: Node, request: api_pb2.StreamPodSandboxesRequest
) -> AsyncIterator[api_pb2.StreamPodSandboxesResponse]:
    """The same in chunks, for lists that outgrow a message."""
    for part in chunks(_items(node, request.filter)):
        yield api_pb2.StreamPodSandboxesResponse(pod_sandboxes=part)
