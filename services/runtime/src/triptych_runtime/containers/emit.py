"""Events for GetContainerEvents, each with the statuses as they are at that moment (evented PLEG)."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime import clock
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.view import sandbox_status


def emit(node: Node, record: ContainerRecord, kind: api_pb2.ContainerEventType.ValueType) -> None:
    """Tell of a container."""
    _emit(node, record.id, node.state.sandboxes.get(record.sandbox_id), kind)


def emit_sandbox(node: Node, record: SandboxRecord, kind: api_pb2.ContainerEventType.ValueType) -> None:
    """Tell of a sandbox: the kubelet knows it as a container of the sandbox's ID."""
    _emit(node, record.id, record, kind)


def _emit(
    node: Node, identity: str, sandbox: SandboxRecord | None, kind: api_pb2.ContainerEventType.ValueType
) -> None:
    if not node.events.watched:
        return
    event = api_pb2.ContainerEventResponse(
        container_id=identity, container_event_type=kind, created_at=clock.now()
    )
    if sandbox is not None:
        known = sandbox.id in node.state.sandboxes
        status = node.sandbox_statuses.get(sandbox.id, sandbox) if known else sandbox_status(sandbox)
        event.pod_sandbox_status.CopyFrom(status)
        containers = [c for c in node.state.containers_of(sandbox.id) if c.visible]
        event.containers_statuses.extend(node.container_statuses.get(c.id, c) for c in containers)
    node.events.publish(event)
