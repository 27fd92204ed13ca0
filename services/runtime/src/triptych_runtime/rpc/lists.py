"""The lists of pods and containers, put together from entries that were encoded when their record changed.

The kubelet asks for all of them every second or so. As messages, 1,000 containers take a millisecond to be
collected and encoded anew; as bytes they are joined.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message
from runtime.v1 import api_pb2

from triptych_runtime.node import Node
from triptych_runtime.readiness import Readiness
from triptych_runtime.rpc.chunks import chunks
from triptych_runtime.view import match_container, match_sandbox

Context = grpc.aio.ServicerContext[Any, bytes]


def handlers(node: Node, ready: Readiness) -> dict[str, grpc.RpcMethodHandler[Any, bytes]]:
    """The four methods by name, with answers that are encoded already."""
    containers, sandboxes = _containers(node), _sandboxes(node)
    return {
        "ListContainers": _unary(ready, api_pb2.ListContainersRequest, containers),
        "StreamContainers": _stream(ready, api_pb2.StreamContainersRequest, containers),
        "ListPodSandbox": _unary(ready, api_pb2.ListPodSandboxRequest, sandboxes),
        "StreamPodSandboxes": _stream(ready, api_pb2.StreamPodSandboxesRequest, sandboxes),
    }


def _unary(
    ready: Readiness, kind: type[Message], entries: Callable[[Any], Iterator[bytes]]
) -> grpc.RpcMethodHandler[Any, bytes]:
    async def answer(request: Any, context: Context) -> bytes:
        await ready.loaded()
        return b"".join(entries(request.filter))

    return grpc.unary_unary_rpc_method_handler(answer, request_deserializer=kind.FromString)


def _stream(
    ready: Readiness, kind: type[Message], entries: Callable[[Any], Iterator[bytes]]
) -> grpc.RpcMethodHandler[Any, bytes]:
    async def answer(request: Any, context: Context) -> AsyncIterator[bytes]:
        await ready.loaded()
        for part in chunks(list(entries(request.filter))):
            yield b"".join(part)

    return grpc.unary_stream_rpc_method_handler(answer, request_deserializer=kind.FromString)


def _containers(node: Node) -> Callable[[api_pb2.ContainerFilter], Iterator[bytes]]:
    """The entries of the containers that pass a filter."""

    def entries(filter: api_pb2.ContainerFilter) -> Iterator[bytes]:
        get, records = node.container_entries.get, node.state.visible_containers()
        if filter.ByteSize():  # the kubelet asks for all
            records = (record for record in records if match_container(record, filter))
        return (get(record.id, record) for record in records)

    return entries


def _sandboxes(node: Node) -> Callable[[api_pb2.PodSandboxFilter], Iterator[bytes]]:
    """The entries of the sandboxes that pass a filter."""

    def entries(filter: api_pb2.PodSandboxFilter) -> Iterator[bytes]:
        get, records = node.sandbox_entries.get, node.state.visible_sandboxes()
        if filter.ByteSize():
            records = (record for record in records if match_sandbox(record, filter))
        return (get(record.id, record) for record in records)

    return entries
